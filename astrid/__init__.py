"""Astrid: momentum of open-source AI tools from authoritative public counts."""

__version__ = "0.1.0"
METHOD_VERSION = "1.0"
"""Version of the scoring method (docs/methodology.md); stored beside every score."""

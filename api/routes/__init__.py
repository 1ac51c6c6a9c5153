"""The routes, one module per subject; each gives a ``router``."""

"""``python -m astrid`` is ``astrid``."""

from __future__ import annotations

from astrid.cli import main

main()

"""Write docs/configuration.md from the declared settings; a test asserts that it is up to date."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import SecretStr

from astrid.settings import PREFIX, Settings

HEAD = """# Configuration

Astrid reads its settings from environment variables, once per process. With none set, `astrid demo` works. An unknown
`ASTRID_*` name is refused with the nearest known one, except `ASTRID_TEST_*` and the names that Kubernetes writes for
services. Secrets belong into the environment or a file, never into a flag.

This page is written by `python tools/configuration.py` from `astrid/settings.py`.

| variable | default | meaning |
|---|---|---|
"""


def render() -> str:
    """Return the page."""
    rows = []
    for name, field in Settings.model_fields.items():
        default: Any = field.default
        value = default.get_secret_value() if isinstance(default, SecretStr) else default
        shown = "" if value is None else f"`{value}`"
        rows.append(f"| `{PREFIX}{name.upper()}` | {shown} | {field.description} |\n")
    return HEAD + "".join(rows)


if __name__ == "__main__":
    Path(__file__).parent.parent.joinpath("docs", "configuration.md").write_text(render(), encoding="utf-8")

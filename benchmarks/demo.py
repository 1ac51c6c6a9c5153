"""Seconds per stage of the demo, as a user runs it: a fresh state folder, then the same once more."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from typing import Any

LIMIT_S = 120.0
_SECONDS = re.compile(r"(\w+) (\d+\.\d)")


def measure_demo() -> list[dict[str, Any]]:
    """Return ``demo.stages``: seconds of a first and of a second run; the aim is a first run under 120 s."""
    with tempfile.TemporaryDirectory() as folder:
        first, second = _run(folder), _run(folder)
    return [
        {
            "name": "demo.stages",
            "ours": sum(first.values()),
            "peer": sum(second.values()),
            "unit": "s",
            "ratio": LIMIT_S / sum(first.values()),
            "target": 1.0,
            "met": sum(first.values()) <= LIMIT_S,
            "note": f"first run ({_stages(first)}); peer = second run ({_stages(second)}); aim: under {LIMIT_S:.0f} s",
            "samples": {"ours": [first], "peer": [second]},
        }
    ]


def _run(folder: str) -> dict[str, float]:
    command = [sys.executable, "-m", "astrid", "demo", "--once"]
    environ = os.environ | {"ASTRID_STATE_DIR": folder}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=600, check=True)
    line = done.stdout[done.stdout.rindex("Seconds: ") :].replace("\n", " ").split("; in all")[0]
    return {name: float(seconds) for name, seconds in _SECONDS.findall(line)}


def _stages(seconds: dict[str, float]) -> str:
    return ", ".join(f"{name} {s:.1f}" for name, s in seconds.items())

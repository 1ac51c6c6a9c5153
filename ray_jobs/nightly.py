"""The nightly as a Ray job.

``ray job submit --address http://127.0.0.1:8265 --working-dir . -- python ray_jobs/nightly.py [--demo] [--day D]``

Progress goes to the job's log, to the gauges ``ray_astrid_batches_done`` and ``ray_astrid_batches_total``,
and shows in the names of the actors. Exit codes are those of the command line.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from datetime import date
from pathlib import Path

# Run as a file, Python puts this file's folder on the path; the packages lie one above it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from astrid.demo import run_demo
from astrid.nightly import run_nightly
from astrid.settings import load_settings
from astrid.shell import exit_code, guarded
from astrid.terminal import open_console, print_result, show_progress


def main() -> None:
    """Parse arguments, load settings, run the night on this cluster, end with its exit code."""
    parser = argparse.ArgumentParser(description="Crawl and score one night on this Ray cluster.")
    parser.add_argument("--day", type=date.fromisoformat, help="the day (UTC); default: the last one that is over")
    parser.add_argument("--demo", action="store_true", help="run the demo's nights against simulated upstreams")
    arguments = parser.parse_args()
    console = open_console()

    def run() -> int:
        settings = load_settings(os.environ)
        if arguments.demo:
            asyncio.run(run_demo(settings, console, "auto", once=True))
            return 0
        with show_progress(console, "nightly") as watch:
            result = asyncio.run(run_nightly(settings, arguments.day, "auto", watch, console.print))
        print_result(console, result)
        return exit_code(result)

    sys.exit(guarded(run))


if __name__ == "__main__":
    main()

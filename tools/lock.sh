#!/bin/sh
# Resolves pyproject.toml anew and writes constraints.txt (everything) and constraints-core.txt (the main job).
#
# Both hold versions and hashes, and no address: where packages come from is each machine's own configuration.
# The resolver lives in a venv of its own, so that it is no part of what it locks. Versions already in the files
# are kept where they still fit; UPGRADE=1 takes the newest.
set -eu
cd "$(dirname "$0")/.."
uv=.venv-lock/bin/uv
if [ ! -x "$uv" ]; then
    .venv/bin/python -m venv --clear .venv-lock
    .venv-lock/bin/python -m pip install -qq --disable-pip-version-check 'uv>=0.8'
fi
compile() {
    "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
        --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' "$@" pyproject.toml
}
compile ${UPGRADE:+--upgrade} --all-extras --output-file constraints.txt
# A fresh file each time: its versions follow constraints.txt, not its own past.
rm -f constraints-core.txt
compile --extra build --constraints constraints.txt --output-file constraints-core.txt
if grep -nE '://|^-|^ *--(index|extra-index|find-links)' constraints.txt constraints-core.txt; then
    echo "An address slipped into the constraints (above); take it out of pyproject.toml." >&2
    exit 1
fi
grep -cE '^[a-z0-9]' constraints.txt constraints-core.txt

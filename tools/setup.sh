#!/bin/sh
# Makes .venv once and keeps it equal to the locked versions. Usage: tools/setup.sh core|all
#
# core = what the main job needs; all = core, tests, linters and benchmarks. Only wheels and archives whose
# hash stands in the constraints files are accepted. Runs again only when those files, pyproject.toml, the
# Python or the place of the clone have changed; two runs at once wait for each other where flock exists.
set -eu
cd "$(dirname "$0")/.."
level=${1:-core}
case $level in core | all) ;; *) echo "tools/setup.sh: the level is core or all, not '$level'" >&2; exit 2 ;; esac

if [ -z "${ASTRID_SETUP_LOCKED:-}" ] && command -v flock >/dev/null 2>&1; then
    # -o: a process that the installation starts must not keep the lock.
    ASTRID_SETUP_LOCKED=1 exec flock -o .venv.lock sh tools/setup.sh "$level"
fi

usable='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))'
find_python() {
    for name in ${PYTHON:-} python3.13 python3.12 python3.11 python3.14 python3; do
        # Asked to run, not only found: a version manager's shim answers for versions that it does not have.
        if "$name" -c "$usable" >/dev/null 2>&1; then echo "$name"; return; fi
    done
    echo "Astrid needs Python 3.11 to 3.14 and found none. On Debian: apt-get install python3 python3-venv" >&2
    exit 1
}

if ! .venv/bin/python -c "$usable; import pip" >/dev/null 2>&1; then
    python=$(find_python)
    if ! "$python" -c 'import venv, ensurepip' >/dev/null 2>&1; then
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        echo "$python has no venv module with pip. On Debian: apt-get install python3-venv (or python$version-venv)" >&2
        exit 1
    fi
    echo "Creating .venv with $("$python" -V)"
    "$python" -m venv --clear .venv
fi

# What an installation depends on; the stamp holds its checksum.
state() {
    { cat "$@"; pwd; .venv/bin/python -V; } | cksum
}
install() { # constraints file
    .venv/bin/python -m pip install -qq --disable-pip-version-check --no-input --require-hashes --no-deps -r "$1"
}

core=$(state constraints-core.txt pyproject.toml)
if [ "$(cat .venv/core.stamp 2>/dev/null)" != "$core" ]; then
    echo "Installing what the main job needs into .venv (once)"
    rm -f .venv/core.stamp .venv/all.stamp
    install constraints-core.txt
    .venv/bin/python -m pip install -qq --disable-pip-version-check --no-input --no-deps --no-build-isolation -e .
    echo "$core" >.venv/core.stamp
fi
[ "$level" = all ] || exit 0

all=$(state constraints.txt pyproject.toml)
if [ "$(cat .venv/all.stamp 2>/dev/null)" != "$all" ]; then
    echo "Installing what tests, linters and benchmarks need into .venv (once)"
    rm -f .venv/all.stamp
    install constraints.txt
    echo "$all" >.venv/all.stamp
fi

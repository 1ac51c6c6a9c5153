# Two commands on a fresh machine: `make demo` runs the main job, `make test` all tests. Each does its own set-up.
SHELL = /bin/sh
PY = .venv/bin/python
ARGS =
ONLY =

.PHONY: help demo test long chaos bench lint format lock clean

help:  ## this list
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/:.*## /|/' | awk -F'|' '{printf "make %-8s %s\n", $$1, $$2}'

demo:  ## the main job on one machine, then the API and the page; ARGS=--once prints and ends
	@sh tools/setup.sh core
	@exec .venv/bin/astrid demo $(ARGS)

test:  ## linters and all tiers, with a fixed slice of the long suites; at most 15 minutes
	@sh tools/setup.sh all
	@exec $(PY) tests/run_tiers.py $(ARGS)

long:  ## the long suites whole, with a new printed seed (ASTRID_TEST_SEED=N repeats one)
	@sh tools/setup.sh all
	@exec $(PY) tests/run_tiers.py --long $(ARGS)

chaos:  ## nights under kill -9, cuts and full disks; ARGS="--trials N --seed S", one: "--trials 1 --seed S"
	@sh tools/setup.sh all
	@exec $(PY) tests/run_tiers.py --long --only chaos $(ARGS)

bench:  ## measures the claims of speed; ONLY=name for one of them
	@sh tools/setup.sh all
	@exec $(PY) -m benchmarks $(if $(ONLY),--only $(ONLY)) $(ARGS)

lint:  ## ruff, mypy --strict, import contracts
	@sh tools/setup.sh all
	@exec $(PY) tests/run_tiers.py --only lint

format:  ## rewrites imports and layout in place
	@sh tools/setup.sh all
	@.venv/bin/ruff check --fix-only --select I .
	@.venv/bin/ruff format .

lock:  ## resolves pyproject.toml anew into the constraints files; UPGRADE=1 takes newer versions
	@sh tools/setup.sh core
	@sh tools/lock.sh

clean:  ## removes what these commands made in this folder
	rm -rf .venv .venv-lock .venv.lock .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find astrid api ray_jobs tests benchmarks tools -name __pycache__ -type d -prune -exec rm -rf {} +

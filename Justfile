# Developer and operator commands; CI runs the same ones.

set shell := ["bash", "-euo", "pipefail", "-c"]

python := ".venv/bin/python"

# list the recipes
default:
    @just --list

# set up and start the relay with embedded defaults; arguments go to `relay serve`
run *ARGS:
    scripts/run {{ ARGS }}

# set up and run the default test suite; arguments go to pytest
test *ARGS:
    scripts/test {{ ARGS }}

# the suites that take minutes
test-long *ARGS:
    {{ python }} -m pytest -m long {{ ARGS }}

# a real PDS and PLC from npm, and foreign consumers
e2e *ARGS:
    scripts/e2e-setup
    {{ python }} -m pytest -m e2e {{ ARGS }}

# format
fmt:
    {{ python }} -m ruff format .
    {{ python }} -m ruff check --fix .

# style
lint:
    {{ python }} -m ruff check .
    {{ python }} -m ruff format --check .

# types
types:
    {{ python }} -m mypy

# import layers
layers:
    .venv/bin/lint-imports

# a fake network to run the relay against
world *ARGS:
    {{ python }} -m tests.world {{ ARGS }}

# measure: `just bench ingest`, `verify` or `tap`
bench NAME *ARGS:
    {{ python }} -m tests.bench.{{ NAME }} {{ ARGS }}

# rewrite the hash-pinned locks from pyproject.toml (needs uv)
lock:
    scripts/lock

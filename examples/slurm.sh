#!/usr/bin/env bash
#SBATCH --job-name=eva
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --no-kill
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@300
#SBATCH --output=eva-%j.log
# The six datasets on several machines: on each of them a vLLM on its GPUs and a node of a Ray cluster on its cores.
#
#     sbatch --nodes=4 examples/slurm.sh [flags of eval-eva.py, for instance --output-dir results]
#
# Submit it in the folder of this checkout. All machines must see this folder, the videos and the model. Before the time
# is up, and after  scancel --batch --signal=TERM JOB , running samples get time to finish, and all that finished is
# kept. Submit the same line again to go on. Settings, from the environment:
MODEL=${MODEL:-models/EVA}
HARNESS_ENV=${HARNESS_ENV:-.venv}       # has requirements.txt and requirements/ray.txt
SERVER_ENV=${SERVER_ENV:-.venv-server}  # has requirements/server.txt
FRAMES=${FRAMES:-$PWD/frames}           # if all machines see it, images go as addresses
SERVER_PORT=${SERVER_PORT:-8000}
RAY_PORT=${RAY_PORT:-6379}
START_TIMEOUT_S=${START_TIMEOUT_S:-1800}
GRACE_S=${GRACE_S:-200} # less than the 300 s of --signal above
set -euo pipefail

cd "${SLURM_SUBMIT_DIR:?is set by sbatch: submit this script with it}"
export RAY_USAGE_STATS_ENABLED=0
# Whoever reaches the port of Ray can run programs as you. The token of this job restricts that to its own processes.
RAY_AUTH_TOKEN=${RAY_AUTH_TOKEN:-$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')}
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN

steps=()
on() { # on MACHINE COMMAND...: start it there, as a step that ends with this job
    srun --overlap --nodes=1 --ntasks=1 --nodelist="$1" "${@:2}" &
    steps+=($!)
}

# Runs a command again and again: Ray on a machine ends when the network loses the machine for a minute.
again='
    trap "kill \$child 2>/dev/null; wait; exit" TERM
    while true; do
        "$@" & child=$!
        wait "$child" || true
        sleep 5 & child=$!
        wait "$child"
    done'

stop_steps() {
    trap '' TERM
    kill -TERM "${steps[@]}" 2>/dev/null || true
    wait "${steps[@]}" 2>/dev/null || true
}
trap stop_steps EXIT

wait_for() { # wait_for WHAT COMMAND...: wait until the command succeeds; fails after START_TIMEOUT_S, or when a step has ended
    local deadline=$((SECONDS + START_TIMEOUT_S))
    until "${@:2}" >/dev/null 2>&1; do
        for step in "${steps[@]}"; do
            kill -0 "$step" 2>/dev/null || { echo "slurm.sh: a step ended while waiting for $1" >&2; exit 1; }
        done
        ((SECONDS < deadline)) || { echo "slurm.sh: no $1 after $START_TIMEOUT_S s" >&2; exit 1; }
        sleep 2
    done
}

mapfile -t machines < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${machines[0]} # this script runs there too
ray="$HARNESS_ENV/bin/ray"

on "$head" "$ray" start --head --port="$RAY_PORT" --block --include-dashboard=false --disable-usage-stats
wait_for "Ray on $head" bash -c "exec 3<> /dev/tcp/$head/$RAY_PORT"
for machine in "${machines[@]:1}"; do
    on "$machine" bash -c "$again" again "$ray" start --address="$head:$RAY_PORT" --block --disable-usage-stats
done

urls=()
for machine in "${machines[@]}"; do
    on "$machine" "$SERVER_ENV/bin/vllm" serve "$MODEL" --port "$SERVER_PORT" \
        --data-parallel-size "${SLURM_GPUS_ON_NODE:-8}" \
        --limit-mm-per-prompt '{"image": 9999, "video": 0}' --allowed-local-media-path "$FRAMES" \
        --mm-processor-cache-gb 20 --attention-backend FLASH_ATTN --enable-prompt-tokens-details
    urls+=("http://$machine:$SERVER_PORT/v1")
done
for url in "${urls[@]}"; do
    wait_for "server at $url" curl --silent --fail --max-time 10 "$url/models"
done

# setsid: a signal to this process group reaches the run and nothing else.
PYTHON="$HARNESS_ENV/bin/python" setsid bash batch.sh \
    --ray "$head:$RAY_PORT" --base-url "$(IFS=,; echo "${urls[*]}")" --tokenizer "$MODEL" \
    --frame-root "$FRAMES" --max-concurrent $((30 * ${#machines[@]})) --grace "$GRACE_S" --yes "$@" &
batch=$!
trap 'kill -TERM -- "-$batch" 2>/dev/null || true' TERM INT
code=0
wait "$batch" || code=$?
while kill -0 "$batch" 2>/dev/null; do # a signal ends the first wait, and the run still needs its time
    wait "$batch" && code=0 || code=$?
done
exit "$code"

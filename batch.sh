#!/usr/bin/env bash
# The reference run: the six datasets, one after the other, then a table of their results. Arguments go to each run, for
# instance --base-url URL. If a dataset fails, the next one runs all the same. An interrupt ends all. Exit codes: 0 all
# finished; 1 one or more failed; 3 none failed, but the infrastructure failed for some samples (--retry-error runs them
# again); 130 and 143 interrupted.
set -u
# Without a trap, Bash ends at once. It must wait for the run, which lets its samples finish first.
trap 'exit 143' TERM

output=. previous=
for argument in "$@"; do
    [ "$previous" != --output-dir ] || output=$argument
    case $argument in --output-dir=*) output=${argument#*=} ;; esac
    previous=$argument
done

# The name of each dataset and of its result.
mapfile -t known < <("${PYTHON:-python}" -c 'import json, sys
for name, entry in json.load(open(sys.argv[1], encoding="utf-8"))["datasets"].items():
    print(name, entry["result"]["name"].removesuffix(".jsonl"))' "$(dirname "$0")/eva/datasets.json")

failed=()
unfinished=()
for entry in "${known[@]}"; do
    dataset=${entry% *}
    echo "== $dataset" >&2
    "${PYTHON:-python}" "$(dirname "$0")/eval-eva.py" --dataset "$dataset" "$@"
    code=$?
    case $code in
        0) ;;
        3) unfinished+=("$dataset") ;;
        130 | 143) exit "$code" ;;
        *) failed+=("$dataset") ;;
    esac
done

results=()
for entry in "${known[@]}"; do
    name=${entry#* }
    for file in "$output/$name.jsonl" "$output/$name".[0-9]*.jsonl; do
        [ ! -f "$file" ] || results+=("$file")
    done
done
[ "${#results[@]}" -eq 0 ] || "${PYTHON:-python}" "$(dirname "$0")/accuracy.py" --table md "${results[@]}"

if [ "${#unfinished[@]}" -gt 0 ]; then
    echo "batch.sh: to run again with --retry-error: ${unfinished[*]}" >&2
fi
if [ "${#failed[@]}" -gt 0 ]; then
    echo "batch.sh: failed: ${failed[*]}" >&2
    exit 1
fi
[ "${#unfinished[@]}" -eq 0 ] || exit 3

#!/usr/bin/env bash
# The reference run: the six datasets, one after the other. Arguments go to each run, for instance --base-url URL.
# A dataset that fails does not keep the next from running; the exit code is 1 if any failed. An interrupt ends all.
set -u
# Bash would end at once and leave the run alone, which has its samples to finish: its own exit code says it.
trap 'exit 143' TERM

failed=()
for dataset in videomme longvideobench mlvu lsdbench videoholmes lvbench; do
    echo "== $dataset" >&2
    "${PYTHON:-python}" "$(dirname "$0")/eval-eva.py" --dataset "$dataset" "$@"
    code=$?
    case $code in
        0) ;;
        130 | 143) exit "$code" ;;
        *) failed+=("$dataset") ;;
    esac
done
if [ "${#failed[@]}" -gt 0 ]; then
    echo "batch.sh: failed: ${failed[*]}" >&2
    exit 1
fi

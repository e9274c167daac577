#!/usr/bin/env bash
# The reference run: the six datasets, one after the other. Arguments go to each run, for instance --base-url URL.
# A dataset that fails does not keep the next from running. An interrupt ends all. Exit codes: 0 all finished; 1 one or
# more failed; 3 none failed, but samples ended by failures of the infrastructure (--retry-error runs them again).
set -u
# Bash would end at once and leave the run alone, which has its samples to finish: its own exit code says it.
trap 'exit 143' TERM

failed=()
unfinished=()
for dataset in videomme longvideobench mlvu lsdbench videoholmes lvbench; do
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
if [ "${#unfinished[@]}" -gt 0 ]; then
    echo "batch.sh: to run again with --retry-error: ${unfinished[*]}" >&2
fi
if [ "${#failed[@]}" -gt 0 ]; then
    echo "batch.sh: failed: ${failed[*]}" >&2
    exit 1
fi
[ "${#unfinished[@]}" -eq 0 ] || exit 3

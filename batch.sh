#!/usr/bin/env bash
# The reference run: the six datasets, one after the other. Arguments go to each run, for instance --base-url URL.
# If a dataset fails, the next one runs all the same. An interrupt ends all. Exit codes: 0 all finished; 1 one or more
# failed; 3 none failed, but the infrastructure failed for some samples (--retry-error runs them again); 130 and 143
# interrupted.
set -u
# Without a trap, Bash ends at once. It must wait for the run, which lets its samples finish first.
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

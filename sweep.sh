#!/usr/bin/env bash
# Train and evaluate every category of a dataset, then print one table.
#
# usage: ./sweep.sh DATASET PATH [options for main.py]
#
# DATASET is mvtec_loco, mvtec_ad, visa, folder (one product, or a folder of several) or demo; PATH is
# where it lies. Categories that are finished, on these images and by these options, are skipped,
# interrupted ones go on, a failed one does not stop the rest. With --check, main.py says of each whether it could be trained.
# With --report, report.py writes one page of all of them in the end.
#
# GPUS=0,1,2 trains one category on each of these GPUs at a time. PYTHON names the interpreter.
# Exit status: 0 when all succeeded, 1 when one failed, 2 for wrong arguments, 130 when interrupted.
#
# examples:
#   ./sweep.sh mvtec_loco path/mvtec_loco --model_size small
#   GPUS=0,1,2 ./sweep.sh mvtec_ad path/mvtec_ad --model_size small --seed 2 --output_dir output_seed2
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3}

case ${1:-} in
    -h | --help)
        sed -n '2,/^[^#]/ s/^# \{0,1\}//p' "$0" # the lines above
        exit 0
        ;;
esac
if [ $# -lt 2 ]; then
    echo "usage: $0 DATASET PATH [options for main.py]; $0 --help tells more" >&2
    exit 2
fi
dataset=$1 path=$2
shift 2

output=output start=--resume check= report=
arguments=("$@")
for ((i = 0; i < $#; i++)); do
    case ${arguments[i]} in
        --output_dir) output=${arguments[i + 1]:-output} ;;
        --output_dir=*) output=${arguments[i]#*=} ;;
        --overwrite) start=--overwrite ;;
        --check) check=1 ;;
        --report)
            report=1
            unset "arguments[i]" # of each category it would be the same page again
            ;;
    esac
done

categories=$(PYTHONPATH=$here "$python" -m data.catalog "$dataset" "$path") || exit 2
claims=$(mktemp -d) || exit 1 # no space in TMPDIR: mktemp says so
trap 'rm -rf "$claims"' EXIT
stop() { # each training keeps its last step
    trap '' INT TERM
    kill -TERM $(jobs -p) 2>/dev/null
    wait
    if [ $start = --overwrite ]; then
        echo "interrupted: the same command begins anew, main.py --resume goes on with one" >&2
    else
        echo "interrupted: the same command goes on from here" >&2
    fi
    exit 130
}
trap stop INT TERM

# Work through the categories that nobody has claimed yet; $1 is a GPU's number, or empty.
work() {
    local category child device=()
    trap '' INT # a terminal's goes to all: `stop` passes it on, and waits for what is saved
    [ -n "$1" ] && device=(--device "cuda:$1")
    trap 'kill -TERM "$child" 2>/dev/null; wait "$child"; exit 130' TERM
    while IFS= read -r category; do
        mkdir "$claims/$category" 2>/dev/null || continue
        if [ -z "$check" ] && [ $start = --resume ] && [ -f "$output/metrics/$dataset/$category.json" ] &&
            [ ! -d "$output/trainings/$dataset/.$category.new" ]; then
            # --check says whether it was trained on these images, by these options
            train "$category" --check >/dev/null && echo "$category: finished already" >&2
            continue
        fi
        echo "$category" >&2
        train "$category" >&3
    done <<<"$categories"
}

# Run main.py for category $1; what follows are options of this call. Notes which one failed.
train() {
    "$python" "$here/main.py" --dataset "$dataset" "--subdataset=$1" \
        "${place[@]}" "${device[@]}" $resume "${arguments[@]}" "${@:2}" &
    child=$!
    wait "$child" || { touch "$claims/$1/failed" && false; }
}

output=${output/#\~\//$HOME/}
place=("--${dataset}_path" "$path") resume=--resume
[ "$dataset" = demo ] && place=()
[ $start = --overwrite ] && resume=
exec 3>/dev/null # the table at the end has every row
[ -n "$check" ] && exec 3>&1
IFS=, read -ra gpus <<<"${GPUS:-}"
for gpu in "${gpus[@]:-}"; do
    work "$gpu" &
done
wait

table=0
done=()
while IFS= read -r category; do
    [ -e "$claims/$category/failed" ] || done+=("--category=$category")
done <<<"$categories"
if [ -z "$check" ] && [ ${#done[@]} -gt 0 ]; then
    PYTHONPATH=$here "$python" -m evaluation.tables "$output" --dataset "$dataset" "${done[@]}" || table=$?
    [ -z "$report" ] || "$python" "$here/report.py" "$output" >&2 || table=$?
fi
failed=$(cd "$claims" && for f in */failed; do [ -e "$f" ] && echo "${f%/failed}"; done | paste -sd' ')
if [ -n "$failed" ]; then
    echo "failed: $failed" >&2
    exit 1
fi
exit $table

#!/usr/bin/env bash
# Train and evaluate every category of a data set on this machine: sweep.py with the python of PYTHON.
# ./sweep.sh --help tells more.
set -euo pipefail
exec "${PYTHON:-python3}" "$(dirname "${BASH_SOURCE[0]}")/sweep.py" "$@"

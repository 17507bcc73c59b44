#!/usr/bin/env bash
# Everything that needs a GPU, in under ten minutes: build, tests on the device, times of pendel and of the peers,
# Nsight Compute, compute-sanitizer, the whole test suite. Writes RESULTS/gpu.json and gpu.log; nothing is downloaded.
# Without a GPU it is a dry run. What there is to it: bench/gpu.py.
#
#   bench/gpu.sh [PYTHON [RESULTS [options of gpu.py]]]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${1:-python3} results=${2:-bench/results}
exec "$python" bench/gpu.py --results "$results" "${@:3}"

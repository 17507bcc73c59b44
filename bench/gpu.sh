#!/usr/bin/env bash
# Everything that needs a GPU, in under ten minutes: build, tests on the device, compute-sanitizer on small cases,
# times. Writes bench/results/gpu.json (commit, GPU, driver, times). Needs nvcc and an environment with the packages of
# pyproject.toml's build-system, [test] and [cuda13] or [cuda12]; nothing is downloaded. Without a GPU it is a dry run:
# it builds, collects the tests, and goes through the bench's code on the CPU, without a figure of a GPU.
#
#   bench/gpu.sh [PYTHON]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${1:-python}
results=bench/results
mkdir -p "$results"

dry=
if ! nvidia-smi --query-gpu=name,driver_version --format=csv,noheader; then
  echo "no GPU: DRY RUN, nothing below says anything about a GPU"
  dry=1
fi

"$python" -m pip install -q --no-build-isolation --no-deps -C cmake.define.PENDEL_CUDA=ON .
"$python" -m pytest tests/test_cuda_compile.py

if [[ $dry ]]; then
  "$python" -m pytest -m gpu
  "$python" bench/gpu.py --small --dry-run
  "$python" bench/gpu.py --dry-run --json "$results/gpu-dry-run.json"
  exit 0
fi

"$python" -c 'import pendel; assert pendel.cuda_available(), pendel.info()["cuda"]'
"$python" -m pytest -m gpu
for tool in memcheck racecheck synccheck; do
  timeout 120 compute-sanitizer --tool "$tool" --error-exitcode 1 "$python" bench/gpu.py --small
done
"$python" bench/gpu.py --json "$results/gpu.json"

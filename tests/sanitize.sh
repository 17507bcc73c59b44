#!/usr/bin/env bash
# The CPU engine under GCC's sanitizers: one instruction set with 512-bit packs (CMakeLists.txt, PENDEL_SANITIZE) runs
# the operator's tests and the fuzz of fuzz_operator.py.
#
#   tests/sanitize.sh [COUNT [SEED [FOLDER]]]
#
# COUNT seeds of the fuzz from SEED on, 2000 from 0 if not given; FOLDER keeps the builds, which take minutes. Exit status
# 0 only if address, undefined behaviour and thread are silent, and thread finds the race that is planted for it. PYTHON:
# an interpreter with NumPy, SciPy, h5py and pytest, and CMake. For nights, not for every run: .ci/run.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
count=${1:-2000} seed=${2:-0} folder=${3:-}
python=${PYTHON:-python3}
if [[ -z $folder ]]; then
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
fi
unset PENDEL_CPU
export PENDEL_FUZZ_LONGEST=60 # instead of 5: a sanitizer takes ten times as long
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1
export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1
export TSAN_OPTIONS=halt_on_error=1:ignore_noninstrumented_modules=1

operator_tests=(test_forward test_adjoint test_lifted test_symmetric test_resync test_etd2rk test_swept test_analytic
  test_operator_arguments test_plain_arrays test_overflow test_farfield)
files=("${operator_tests[@]/#/$root/tests/}")
files=("${files[@]/%/.py}")

# The package with the engine of a kind, at $folder/KIND/python.
build() {
  local into=$folder/$1
  cmake -S "$root" -B "$into/build" -DPENDEL_SANITIZE="$1" >"$folder/$1.log"
  cmake --build "$into/build" >>"$folder/$1.log"
  rm -rf "$into/python"
  cp -r "$root/python" "$into/python"
  rm -rf "$into"/python/pendel/operator/libraries
  mkdir "$into"/python/pendel/operator/libraries
  cp "$into"/build/pendel_cpu.so "$into/python/pendel/operator/libraries/"
}

# Python with the engine of a kind and the library of its sanitizer; libstdc++ beside it, whose exceptions it watches.
# Without random addresses, which older thread sanitizers cannot bear.
under() {
  local kind=$1 library=$2
  shift 2
  setarch -R env PYTHONPATH="$folder/$kind/python" \
    LD_PRELOAD="$(gcc -print-file-name="$library") $(gcc -print-file-name=libstdc++.so)" "$python" "$@"
}

rows_on_threads='
import numpy as np
from pendel import TakagiTaupin
from pendel.operator import _core

assert _core.cpu_isa() == "generic" and _core.cpu_lanes(True) == 16, "not the engine under a sanitizer"
op = TakagiTaupin((4, 200, 4), (8e-9, 8e-9, 8e-9), 1.5e-10, 0.7, -9e-5 + 8e-6j, 5e-5, threads=4)
for _ in range(50):
    op.forward(np.ones(op.shape), np.zeros((3, 3)))
'

build address
under address libasan.so -c "$rows_on_threads"
under address libasan.so "$root/tests/fuzz_operator.py" --count "$count" --seed "$seed"
under address libasan.so -m pytest -q -p no:cacheprovider "${files[@]}"

build thread
under thread libtsan.so -c "$rows_on_threads"
under thread libtsan.so "$root/tests/fuzz_operator.py" --count "$((count / 4))" --seed "$seed"

build race
if under race libtsan.so -c "$rows_on_threads" 2>"$folder/race.txt" || ! grep -q "data race" "$folder/race.txt"; then
  echo "thread: the planted race was not found" >&2
  exit 1
fi
echo "address, undefined behaviour and thread: nothing; the planted race was found"

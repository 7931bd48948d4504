#!/usr/bin/env bash
# What a card does, in four minutes: everything that is marked gpu, then steps, siblings, Hessian and memory against what they should take.
#     tests/gpu/first.sh         from the project's root, with anarch on the path; results go to $OUT, or to gpu-first
#     SMALL=1 tests/gpu/first.sh     on a processor, to see that it works
# The tests and the benchmarks have a limit of their own, so that neither takes the other's time; what they found is printed last.
set -uo pipefail
out=${OUT:-gpu-first}
mkdir -p "$out"
export PYTHONUNBUFFERED=1 PYTHONPATH="${PYTHONPATH:+$PYTHONPATH:}tests/benchmarks"
tests=(tests/gpu tests/ops tests/data tests/curvature/test_lanczos.py tests/plugins/workers/local/test_cards.py)
small=()
if [ -n "${SMALL:-}" ]; then tests=(tests/gpu/test_relaxations.py) small=(--small); fi

begun=$SECONDS
timeout -k 5 "${TESTS_SECONDS:-105}" python3 -P -m pytest -q -W default -m gpu -n "${PROCESSES:-6}" --durations=5 "${tests[@]}" >"$out/tests.txt" 2>&1
tested=$?
echo "tests: exit status $tested after $((SECONDS - begun)) s"
begun=$SECONDS
timeout -k 5 "${BENCHMARKS_SECONDS:-125}" python3 -P tests/benchmarks/gpu.py "${small[@]}" --json "$out/gpu.json" >"$out/gpu.txt" 2>&1
measured=$?
echo "benchmarks: exit status $measured after $((SECONDS - begun)) s"
tail -n 25 "$out/tests.txt"
cat "$out/gpu.txt"
exit $((tested > 0 || measured > 0))

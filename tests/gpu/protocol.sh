#!/usr/bin/env bash
# The paper's protocol on real CIFAR-10 in seven minutes of a card, with as many switch times as the card has time for.
#     tests/gpu/protocol.sh      from the project's root, with anarch on the path and CIFAR-10 in $DATA; results go to $OUT, or to gpu-protocol
#     SMALL=1 tests/gpu/protocol.sh     on a processor, to see that it works
set -uo pipefail
out=${OUT:-gpu-protocol}
mkdir -p "$out"
export PYTHONUNBUFFERED=1
seconds=${PROTOCOL_SECONDS:-420}
if [ -z "${DATA:-}" ]; then
  echo "DATA has to name the folder in which CIFAR-10 is, as for --data-root" >&2
  exit 2
fi
# Stopped, the run saves its state, and the report shows what is finished; that takes some seconds.
timeout -k 45 -s TERM "$seconds" python3 -P tests/gpu/protocol.py "$out" --data-root "$DATA" --seconds "$seconds" ${SMALL:+--small} 2>&1 | tee "$out/protocol.txt"
status=${PIPESTATUS[0]}
rm -rf "$out/run/segments" # networks stay behind
exit "$status"

#!/bin/sh
# Simulates the seeds FROM..=TO, one process each, as many at a time as there are cores:
#   scripts/sim.sh FROM TO [SECONDS]
# SECONDS of virtual time with faults, 20 by default. Prints a line for each seed, and for a failing one the line that replays it.
set -eu
cd "$(dirname "$0")/.."
from=${1:?usage: scripts/sim.sh FROM TO [SECONDS]}
to=${2:?usage: scripts/sim.sh FROM TO [SECONDS]}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
export SIM_SECS="${3:-20}" SIM_OUT="$out"
SIM_BIN=$(cargo test --test sim --no-run --message-format=json | sed -n 's/.*"executable":"\([^"]*\/sim-[^"]*\)".*/\1/p' | tail -n 1)
export SIM_BIN
# A seed that hangs in real time is a failure too.
# shellcheck disable=SC2016 # The inner shell expands these.
seq "$from" "$to" | xargs -P "$(nproc)" -I{} sh -c '
    if SIM_SEED={} timeout 600 "$SIM_BIN" --exact every_seed_holds --nocapture >"$SIM_OUT/{}" 2>&1; then
        grep "^seed=" "$SIM_OUT/{}"
    else
        echo {} >>"$SIM_OUT/failed"
        grep -E "^seed=|VIOLATION|^replay|panicked" "$SIM_OUT/{}" || echo "VIOLATION seed={}: it did not end"
    fi' || true
failed=$(sort -n "$out/failed" 2>/dev/null | tr '\n' ' ' || true)
echo "seeds=$((to - from + 1)) failed=${failed:-none}"
[ -z "$failed" ]

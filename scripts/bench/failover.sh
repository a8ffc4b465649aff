#!/usr/bin/env bash
# How long 16 writers get no save through when the leader of three processes is killed with -9, hands over, or is stopped in good order,
# and what they see of a rolling restart. Checks the bars: kill: median 250 ms, worst 1 s; hand-over and stop: 50 ms; rolling restart: no
# error, p99 100 ms. Exit code 1 if one is missed.
#
#   scripts/bench/failover.sh [--runs 20] [-o json] [--data-dir DIR ON A DISK]
#
# Kills are at least 5 s apart, so 20 take two minutes. Needs nothing but the program, built as for production (QUORATE names one that is
# built already), and a machine that does nothing else meanwhile.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
program="${QUORATE:-}"
[ -n "$program" ] || program="$(production_program)"
exec "$program" bench failover hand-over stop rolling "$@"

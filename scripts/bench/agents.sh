#!/usr/bin/env bash
# Stock Bob agents, 20 and 200 at once, on hot sessions of three quorate processes with ConcurrentSave::Rebase; then the same while the
# leader is killed with -9 and started again, every 10 s. Every acknowledged turn must be kept once, whole, its usage counted.
#
#   scripts/bench/agents.sh [--quick] [--callers 20] [--kills 3] [--kill-every 10] [--seconds 10] [-o json]
#
# Exit: 0 all held, 1 not, 2 could not be run.

# shellcheck source=scripts/bench/lib.sh
. "$(dirname "$0")/lib.sh"
bench agents "$@"

#!/usr/bin/env bash
# Resident memory of all servers of a store, each store alone and new: 10 s after 64 callers' saves, and 10 s after 64 agents' turns.
#
#   scripts/bench/memory.sh [--quick] [--rounds 3] [--seconds 10] [--stores quorate,etcd] [-o json]
#
# Needs what saves.sh needs; the same exit codes.

# shellcheck source=scripts/bench/lib.sh
. "$(dirname "$0")/lib.sh"
bench memory "$@"

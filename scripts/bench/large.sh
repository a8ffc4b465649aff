#!/usr/bin/env bash
# Saves of 512 KiB by 8 callers: of text, which compresses 4 to 5 times, and of noise, which does not (for comparison, no bar).
#
#   scripts/bench/large.sh [--quick] [--rounds 3] [--seconds 10] [--stores quorate,etcd] [-o json]
#
# Needs what saves.sh needs; the same exit codes.

# shellcheck source=scripts/bench/lib.sh
. "$(dirname "$0")/lib.sh"
bench large "$@"

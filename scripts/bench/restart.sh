#!/usr/bin/env bash
# 100 000 keys of 4 KiB, stopped in good order; all processes started together, files in the page cache: milliseconds from the start of
# the last process to the first linearizable read.
#
#   scripts/bench/restart.sh [--quick] [--rounds 3] [--stores quorate,etcd] [-o json]
#
# Needs what saves.sh needs; the same exit codes.

# shellcheck source=scripts/bench/lib.sh
. "$(dirname "$0")/lib.sh"
bench restart "$@"

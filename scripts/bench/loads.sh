#!/usr/bin/env bash
# Linearizable loads of 1 KiB by 1, 64 and 256 callers, on quorate, etcd, PostgreSQL and Redis in turn; checks issue 3's bars.
#
#   scripts/bench/loads.sh [--quick] [--callers 64] [--rounds 3] [--seconds 10] [--stores quorate,etcd] [-o json]
#
# quorate's client remembers what it has loaded and asks whether that is still current: column "wire B/op". Needs what saves.sh needs;
# the same exit codes.

# shellcheck source=scripts/bench/lib.sh
. "$(dirname "$0")/lib.sh"
bench loads "$@"

#!/usr/bin/env bash
# Saves of 1 KiB by 1, 64 and 256 callers, on quorate (3 processes), etcd (3 nodes), PostgreSQL and Redis in turn; checks issue 3's bars.
#
#   scripts/bench/saves.sh [--quick] [--callers 64] [--rounds 3] [--seconds 10] [--stores quorate,etcd] [-o json]
#
# Needs the Debian packages etcd-server, postgresql and redis-server; ETCD_BIN, POSTGRES_BIN, REDIS_BIN and QUORATE_BIN name other
# binaries. Data lies in target/peers (--dir: a real disk) while it runs. Exit: 0 bars reached, 1 missed, 2 could not be measured.

# shellcheck source=scripts/bench/lib.sh
. "$(dirname "$0")/lib.sh"
bench saves "$@"

#!/usr/bin/env bash
# Agents' turns (load, then save if nobody else did), 64 at once, transcripts of 8 KiB growing by 2 KiB to 200 KiB: turns per second and
# bytes written per turn. quorate goes through its adapter for Bob; the others load and store whole documents.
#
#   scripts/bench/turns.sh [--quick] [--rounds 3] [--seconds 10] [--stores quorate,etcd] [-o json]
#
# etcd runs with --quota-backend-bytes=8 GiB, since its default of 2 GiB refuses writes within minutes of this load. Needs what saves.sh
# needs; the same exit codes.

# shellcheck source=scripts/bench/lib.sh
. "$(dirname "$0")/lib.sh"
bench turns "$@"

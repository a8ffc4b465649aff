#!/usr/bin/env bash
# What growing sessions cost, each figure against its limit: scripts/bench/deltas.sh [further flags of `quorate bench`]
# Three processes of its own on this machine. Exits 1 when a figure is missed; see src/docs/performance.md.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
program="$(production_program)"
exec "$program" bench deltas agent-sessions --runs 1 --settle 0s "$@"

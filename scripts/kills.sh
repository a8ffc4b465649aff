#!/usr/bin/env bash
# Kills the leader of three real processes with -9 at random moments, many times, under a writer of compare-and-set increments, and
# checks that the version equals the number of acknowledged saves. Usage: scripts/kills.sh [KILLS], 20 by default.
set -euo pipefail
cd "$(dirname "$0")/.."
QUORATE_KILLS="${1:-20}" cargo test --test processes increments_go_on_through_leader_kills -- --nocapture

#!/usr/bin/env bash
# Chaos with real processes: starts `quorate serve` nodes on this disk, loads them with real clients, installs faults, heals, checks
# every answer, and writes a report. Needs no root: faults that can't be installed are reported as skipped.
#
#   scripts/chaos/run.sh [--nodes 3|5] [--minutes M] [--faults N] [--nemesis LIST] [--seed S] [--dir D]
#   scripts/chaos/run.sh --root ...     also power loss and full disks, on a loop-mounted file system for each node
#   scripts/chaos/run.sh --control      as root: disks that lie about syncs and lose power; must be found out
#   scripts/chaos/run.sh --ci           the share of CI: 3 nodes, at least 60 faults, at most 8 minutes
#   scripts/chaos/run.sh --nemesis cut-leader --hold 20 --call-max 5
#                                       each fault stays 20 s; callers have the client's own deadlines; no call may take longer than 5 s
#                                       or end without a known outcome
#
# LIST: kill-one kill-leader kill-majority kill-all pause-one pause-leader cut-leader cut-minority cut-one-way cut-bridge loss delay
# clock disk-full disk-slow disk-hung rolling snapshot power-loss sync-error, with commas. Default: all, shuffled by the seed.
# Uses where present: unshare, ip, nft, setpriv (util-linux, iproute2, nftables), strace, libfaketime.
# Exit status: 0 passed, 1 something is wrong, 2 usage, 3 nothing proved (too few faults were there, or interrupted).
# QUORATE_CHAOS_BUILD: what cargo builds with, "--profile sim" by default; "--profile sim --features mutants" shares the simulation's build.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

case "${1:-}" in
  -h | --help) sed -n '2,18s/^# \{0,1\}//p' "$0"; exit 0 ;;
esac
unset RUSTFLAGS
read -ra build <<<"${QUORATE_CHAOS_BUILD:---profile sim}"
program="$(test_program faults "${build[@]}")"
[ -n "$program" ] || { echo "the chaos program could not be built" >&2; exit 2; }
PATH="$PATH:/usr/sbin:/sbin"
QUORATE_CHAOS="$*"
QUORATE_CHAOS_COMMIT="$(git rev-parse --short HEAD 2>/dev/null || echo unknown)$(git diff --quiet HEAD 2>/dev/null || echo ', changed')"
export PATH QUORATE_CHAOS QUORATE_CHAOS_COMMIT
# The program takes this process's place: what kills it ends all that it started.
exec "$program" --exact chaos::real_processes_serve_right_answers_under_faults --nocapture

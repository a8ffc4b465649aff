#!/usr/bin/env bash
# How a start grows with what is stored: three processes on loopback are filled, stopped in good order and started together; milliseconds
# from the start of the last one to the first linearizable read, files in the page cache. By sessions (of 256 bytes) and by bytes
# (sessions of 64 KiB that no compression makes smaller).
#
#   scripts/bench/start_curve.sh [--sessions 100000,300000,1000000] [--gigabytes 1,2,4] [--runs 3] [--data-dir DIR]
#
# An empty list leaves that part out. A gigabyte of sessions takes some 4 GB of disk, for all three nodes together. QUORATE_BIN names a
# build for production; without it one is made. Exit 1: a start took longer than 10 s. Exit 2: it could not be measured.
set -euo pipefail
cd "$(dirname "$0")/../.."

sessions=100000,300000,1000000 gigabytes=1,2,4 runs=3 data_dir=${TMPDIR:-/tmp}
while [ $# -gt 0 ]; do
  case "$1" in
    --sessions) sessions="$2"; shift 2 ;;
    --gigabytes) gigabytes="$2"; shift 2 ;;
    --runs) runs="$2"; shift 2 ;;
    --data-dir) data_dir="$2"; shift 2 ;;
    -h | --help) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" | sed '$d'; exit 0 ;;
    *) echo "unknown argument: $1 (see --help)" >&2; exit 2 ;;
  esac
done
limit_ms=10000
if [ -z "${QUORATE_BIN:-}" ]; then
  # shellcheck source=scripts/lib.sh
  . scripts/lib.sh
  QUORATE_BIN="$(production_program)" || exit 2
fi

# A number of the report: its name, and for a spread which of the three.
figure() { sed -n "s/.*\"$1\":{[^}]*\"$2\":\([0-9]*\).*/\1/p"; }
number() { grep -o "\"$1\":[0-9][0-9]*" | head -n 1 | cut -d: -f2; }

missed=0
printf '%12s %10s %10s %24s %10s %12s\n' sessions bytes disk_MiB first_read_ms '' memory_MiB
point() {
  local report median
  report="$("$QUORATE_BIN" bench restart --keys "$1" --value-size "$2" ${3:+"$3"} --runs "$runs" --settle 0s --data-dir "$data_dir" -o json)" || exit 2
  median="$(figure first_read_ms median <<<"$report")"
  [ -n "$median" ] || { echo "no figure in the report: $report" >&2; exit 2; }
  printf '%12s %10s %10s %10s (%s-%s) %12s\n' "$1" "$2" $(($(number disk_bytes <<<"$report") / 1048576)) "$median" \
    "$(figure first_read_ms min <<<"$report")" "$(figure first_read_ms max <<<"$report")" \
    $(($(number memory_bytes <<<"$report") / 1048576))
  [ "$median" -le "$limit_ms" ] || { echo "MISSED: $median ms, limit $limit_ms ms"; missed=1; }
}
for count in ${sessions//,/ }; do point "$count" 256 ""; done
for count in ${gigabytes//,/ }; do point $((count * 1000000000 / 65536)) 65536 --incompressible; done
exit $missed

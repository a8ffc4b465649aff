#!/usr/bin/env bash
# What 16 writers see of a leader whose disk hangs for 30 s: each of its threads' next sync is held for so long. Fails if any of them was
# saw an error, if a save took longer than 5 s, or if no other node led meanwhile.
#
#   scripts/bench/hung.sh [TIMES]        1 by default; each takes 50 s
#
# Needs strace and the right to attach to one's own processes. QUORATE names the program if it is built already. The data lies below
# TMPDIR, which must be on a disk. Exit code 2: it could not be tried.
case "${1:-}" in -h | --help) sed -n '2,/^case /s/^# \{0,1\}//p' "$0" | sed '$d'; exit 0 ;; esac
times="${1:-1}"
command -v strace >/dev/null || { echo "strace is not installed" >&2; exit 2; }
# shellcheck source=scripts/bench/nodes.sh
. "$(dirname "$0")/nodes.sh"

start_nodes hung
missed=0
for time in $(seq "$times"); do
  leader="$(leading id)" pid="$(leading pid)"
  "$program" bench save --endpoints "$endpoints" --callers 16 --warm-up 2s --seconds 45 --runs 1 --settle 0s -o json >"$dir/report" &
  load=$!
  started+=("$load")
  sleep 5
  strace -f -qq -p "$pid" -e trace=fdatasync,fsync -e inject=fdatasync,fsync:delay_enter=30000000:when=1 -o "$dir/strace" 2>"$dir/strace.err" &
  tracer=$!
  started+=("$tracer")
  sleep 15
  new="$(leading id || true)"
  wait "$load" || { echo "the load ended early: $(cat "$dir/report")" >&2; exit 2; }
  kill -INT "$tracer" 2>/dev/null || true
  wait "$tracer" 2>/dev/null || true
  held="$(grep -c DELAYED "$dir/strace" || true)"
  [ "$held" -gt 0 ] || { echo "no sync was held: $(cat "$dir/strace.err")" >&2; exit 2; }
  number() { grep -o "\"$1\":[0-9]*" "$dir/report" | head -n 1 | cut -d: -f2; }
  slowest="$(grep -o '"max":{[^}]*}' "$dir/report" | grep -o '"max":[0-9][0-9.]*' | head -n 1 | cut -d: -f2)"
  echo "$time: node $leader's disk hung ($held syncs held 30 s), node ${new:-none} led meanwhile; of $(number operations) saves" \
    "$(number failures) failed, and the slowest took ${slowest%.*} ms (limit 5000 ms)"
  [ "$(number failures)" = 0 ] && [ "${slowest%.*}" -le 5000 ] && [ -n "$new" ] && [ "$new" != "$leader" ] || missed=1
done
exit $missed

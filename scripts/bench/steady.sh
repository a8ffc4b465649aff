#!/usr/bin/env bash
# Whether a busy cluster keeps its leader: three processes at full load, every core also kept busy by others, and in the second half one
# sync in a hundred of the leader stalls for 900 ms. Fails if the term changed, since then somebody called an election for nothing.
#
#   scripts/bench/steady.sh [SECONDS]        600 by default, of which the second half with stalls
#
# QUORATE names the program if it is built already. Stalls need strace and the right to attach to one's own processes; without, that half
# is skipped and said so. The data lies below TMPDIR, which must be on a disk.
case "${1:-}" in -h | --help) sed -n '2,/^case /s/^# \{0,1\}//p' "$0" | sed '$d'; exit 0 ;; esac
seconds="${1:-600}"
# shellcheck source=scripts/bench/nodes.sh
. "$(dirname "$0")/nodes.sh"

start_nodes steady
before="$(leading term)"
pid="$(leading pid)"
echo "node $(leading id) leads in term $before"
for _ in $(seq "$(nproc)"); do
  (while :; do :; done) &
  started+=($!)
done

half=$((seconds / 2))
load() { "$program" bench save --endpoints "$endpoints" --callers 64 --seconds "$1" --runs 1 --settle 0s; }
load "$half"
middle="$(leading term)"
echo "after $half s on busy cores (load average $(cut -d' ' -f1 /proc/loadavg)): term $middle"
stalls=none
if command -v strace >/dev/null; then
  strace -f -qq -p "$pid" -e trace=fdatasync -e inject=fdatasync:delay_exit=900000:when=1+100 -o "$dir/strace" 2>"$dir/strace.err" &
  tracer=$!
  started+=("$tracer")
  load "$half"
  kill -INT "$tracer" 2>/dev/null || true
  stalls="$(grep -c DELAYED "$dir/strace" || true)"
  [ "$stalls" -gt 0 ] || { echo "no sync stalled: $(cat "$dir/strace.err")" >&2; exit 2; }
else
  echo "no strace: no stalls"
fi
after="$(leading term)"
echo "after $half s with stalls of 900 ms ($stalls of them, load average $(cut -d' ' -f1 /proc/loadavg)): term $after"
if [ "$before" != "$after" ]; then
  echo "an election was called for nothing" >&2
  grep -h "leader" "$dir"/*.log | tail -n 20 >&2
  exit 1
fi
echo "no election in $seconds s"

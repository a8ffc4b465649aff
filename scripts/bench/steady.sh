#!/usr/bin/env bash
# Whether a busy cluster keeps its leader: three processes at full load, every core also kept busy by others, and in the second half one
# sync in a hundred of the leader stalls for 900 ms. Fails if the term changed, since then somebody called an election for nothing.
#
#   scripts/bench/steady.sh [SECONDS]        600 by default, of which the second half with stalls
#
# QUORATE names the program if it is built already. Stalls need strace and the right to attach to one's own processes; without, that half
# is skipped and said so. The data lies below TMPDIR, which must be on a disk.
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds="${1:-600}"
program="${QUORATE:-}"
if [ -z "$program" ]; then
  cargo build --locked --release --bin quorate
  program=target/release/quorate
fi
dir="$(mktemp -d)"
started=()
finish() {
  for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  rm -rf "$dir"
}
trap finish EXIT

base=$((20000 + $$ % 8000))
{
  echo 'name = "steady"'
  for node in 1 2 3; do
    port=$((base + 10 * node))
    printf '[[node]]\nid = %s\nclient = "127.0.0.1:%s"\npeer = "127.0.0.1:%s"\nadmin = "127.0.0.1:%s"\n' \
      "$node" "$port" "$((port + 1))" "$((port + 2))"
  done
} >"$dir/cluster.toml"
endpoints="127.0.0.1:$((base + 10)),127.0.0.1:$((base + 20)),127.0.0.1:$((base + 30))"
for node in 1 2 3; do
  "$program" serve --config "$dir/cluster.toml" --data-dir "$dir/data" --node "$node" --bootstrap 2>"$dir/$node.log" &
  started+=($!)
done

# field NAME of the node that leads
leading() {
  "$program" status --endpoints "$endpoints" -o json 2>/dev/null |
    grep -o '{[^{}]*"role":"leader"[^{}]*}' | grep -o "\"$1\":[0-9]*" | head -n 1 | cut -d: -f2
}
for _ in $(seq 100); do
  [ -n "$(leading term || true)" ] && break
  sleep 0.2
done
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
echo "after $half s on busy cores: term $middle"
stalls=none
if command -v strace >/dev/null; then
  strace -f -qq -p "$pid" -e trace=fdatasync -e inject=fdatasync:delay_exit=900000:when=1+100 -o "$dir/strace" 2>"$dir/strace.err" &
  tracer=$!
  started+=("$tracer")
  load "$half"
  kill -INT "$tracer" 2>/dev/null || true
  stalls="$(grep -c DELAYED "$dir/strace" || true)"
else
  echo "no strace: no stalls"
fi
after="$(leading term)"
echo "after $half s with stalls of 900 ms ($stalls of them): term $after"
if [ "$before" != "$after" ]; then
  echo "an election was called for nothing" >&2
  grep -h "leader" "$dir"/*.log | tail -n 20 >&2
  exit 1
fi
echo "no election in $seconds s"

#!/usr/bin/env bash
# The cluster of cluster.toml as three plain processes, for trying things by hand. `quorate dev` does more, and restarts what dies.
#
#   scripts/cluster.sh up          start the nodes that do not run, and wait until there is a leader
#   scripts/cluster.sh down        stop them in good order
#   scripts/cluster.sh kill N      kill -9 node N; `up` starts it again
#   scripts/cluster.sh status      what `quorate status` says
#
# QUORATE_BIN names the binary (default: target/debug/quorate, built if missing), QUORATE_DATA the data directory.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly bin="${QUORATE_BIN:-target/debug/quorate}"
readonly data="${QUORATE_DATA:-quorate-data/cluster}"
readonly nodes="1 2 3"

usage() { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }

# The pid of a node that runs. A pid file alone proves nothing: the number may belong to someone else by now.
running() {
  local pid
  pid="$(cat "$data/$1.pid" 2>/dev/null)" || return 1
  [ -r "/proc/$pid/cmdline" ] && tr '\0' ' ' <"/proc/$pid/cmdline" | grep -q -- "serve .*--node $1 " && echo "$pid"
}

start() {
  local node="$1"
  nohup "$bin" serve --config cluster.toml --node "$node" --data-dir "$data" --bootstrap >>"$data/$node.log" 2>&1 </dev/null &
  echo "$!" >"$data/$node.pid"
  echo "node $node: started, pid $!, log $data/$node.log"
}

up() {
  [ -x "$bin" ] || cargo build --locked
  mkdir -p "$data"
  local node pid
  for node in $nodes; do
    if pid="$(running "$node")"; then echo "node $node: runs, pid $pid"; else start "$node"; fi
  done
  for _ in $(seq 100); do
    if "$bin" status -o json 2>/dev/null | grep -q '"role":"leader"'; then status; return; fi
    for node in $nodes; do
      running "$node" >/dev/null || { echo "node $node ended: $(tail -n 1 "$data/$node.log")" >&2; exit 1; }
    done
    sleep 0.2
  done
  echo "no leader within 20 s; see $data/*.log" >&2
  exit 1
}

down() {
  local node pid
  for node in $nodes; do
    if pid="$(running "$node")"; then kill -TERM "$pid"; fi
  done
  for node in $nodes; do
    for _ in $(seq 100); do
      running "$node" >/dev/null || break
      sleep 0.1
    done
    if pid="$(running "$node")"; then
      echo "node $node: did not stop within 10 s, killed" >&2
      kill -KILL "$pid"
    fi
    rm -f "$data/$node.pid"
  done
  echo "stopped; the data stays in $data"
}

status() { "$bin" status; }

case "${1:-}" in
  up) up ;;
  down) down ;;
  status) status ;;
  kill)
    [ $# -eq 2 ] || usage
    pid="$(running "$2")" || { echo "node $2 does not run" >&2; exit 1; }
    kill -KILL "$pid"
    echo "node $2: killed, pid $pid"
    ;;
  *) usage ;;
esac

# shellcheck shell=bash
# Sourced by the scripts that disturb three processes of their own: starts them, knows who leads, and removes everything at the end.
# QUORATE names the program if it is built already. The data lies below TMPDIR, which must be on a disk.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
program="${QUORATE:-}"
[ -n "$program" ] || program="$(production_program)"
dir="$(mktemp -d)"
case "$(stat -f -c %T "$dir")" in
  tmpfs | ramfs) echo "$dir lies in memory, where syncing costs nothing: set TMPDIR to a directory on a disk" >&2; rm -rf "$dir"; exit 2 ;;
esac
started=()
finish() {
  for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  rm -rf "$dir"
}
trap finish EXIT

# Starts three nodes named $1 and waits until one leads. Sets `endpoints`.
start_nodes() {
  local node
  endpoints="$(configure_nodes "$1" $((20000 + $$ % 8000)) "$dir/cluster.toml")"
  for node in 1 2 3; do
    "$program" serve --config "$dir/cluster.toml" --data-dir "$dir/data" --node "$node" --bootstrap 2>"$dir/$node.log" &
    started+=($!)
  done
  for _ in $(seq 100); do
    [ -n "$(leading term || true)" ] && return
    sleep 0.2
  done
  echo "no node leads within 20 s" >&2
  cat "$dir"/*.log >&2
  exit 2
}

# A number of the node that leads in the latest term, e.g. `leading pid`; nothing if none does. One whose disk hangs may not know yet that
# another leads.
leading() {
  "$program" status --endpoints "$endpoints" -o json 2>/dev/null |
    sed 's/{"applied":/\n&/g' | grep '"role":"leader"' | sed 's/.*"term":\([0-9]*\).*/\1 &/' | sort -n | tail -n 1 | grep -o "\"$1\":[0-9]*" | head -n 1 | cut -d: -f2
}

#!/usr/bin/env bash
# A rolling upgrade with two builds: three processes of an older commit become what is checked out here, one after the other, under load.
#
#   scripts/upgrade.sh [OLD_COMMIT]        the last tag by default; without tags, twenty commits ago
#
# The load is a population of agents that a client of the old build drives and audits (every acknowledged turn once, usage exact), and a
# counter that the new build raises by compare-and-set, one acknowledged version after the other. Then: the cluster version must not have
# risen before the last node was new, must rise after, and a node of the old build put back must be refused, say why, and change nothing.
# Where both builds know the same cluster versions, the new one is started with the version that only tests know.
#
# Exit code 1: something of this is not so; 2: it could not be tried. PROFILE (debug) says how both are built, OLD_BIN and NEW_BIN name
# builds that are there. What it makes lies below target/upgrade.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
case "${1:-}" in -h | --help) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" | sed '$d'; exit 0 ;; esac

old_commit="$(git rev-parse --short "${1:-$(git describe --tags --abbrev=0 2>/dev/null || echo HEAD~20)}")" || exit 2
new_commit="$(git rev-parse --short HEAD)"
profile="${PROFILE:-debug}"
[ "$profile" = debug ] && flags=() || flags=(--profile "$profile")
root="$PWD" out="$PWD/target/upgrade"
mkdir -p "$out"
say() { printf '%s  %s\n' "$(date +%T)" "$*"; }
fail() { say "FAILED: $*" >&2; tail -n 5 "$dir"/*.log >&2 || true; exit 1; }

# Builds a directory and keeps the program under a name of its own. The dependencies are compiled once for both.
build() {
  say "building $1" >&2
  (cd "$2" && CARGO_TARGET_DIR="$root/target" cargo build --locked "${flags[@]}" --bin quorate >&2) || exit 2
  cp "$root/target/$profile/quorate" "$out/quorate-$1"
  echo "$out/quorate-$1"
}
if [ -z "${OLD_BIN:-}" ]; then
  [ -d "$out/$old_commit" ] || git worktree add --detach "$out/$old_commit" "$old_commit" >/dev/null 2>&1 || exit 2
  OLD_BIN="$(build "$old_commit" "$out/$old_commit")"
  git worktree remove --force "$out/$old_commit"
fi
: "${NEW_BIN:=$(build "new-$new_commit" "$root")}"

dir="$(mktemp -d "$out/run-XXXXXX")"
declare -A pids
background=()
finish() {
  for pid in "${background[@]}" "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  [ -n "${KEEP:-}" ] || rm -rf "$dir"
}
trap finish EXIT

endpoints="$(configure_nodes upgrade $((12000 + $$ % 8000)) "$dir/cluster.toml")"
export QUORATE_ENDPOINTS="$endpoints"

start() { # NODE PROGRAM [FLAG]
  local node="$1" program="$2"
  shift 2
  "$program" serve --config "$dir/cluster.toml" --data-dir "$dir/data" --node "$node" --bootstrap "$@" 2>>"$dir/$node.log" &
  pids[$node]=$!
}
stop() {
  kill "${pids[$1]}"
  wait "${pids[$1]}" || fail "node $1 did not end in good order"
  unset "pids[$1]"
}
status() { "$NEW_BIN" status -o json 2>/dev/null; }
# One number of every node, e.g. `1 1 1`
each() { status | grep -o "\"$1\":[0-9]*" | cut -d: -f2 | tr '\n' ' '; }
# Waits until a condition holds
until_true() { # SECONDS WHAT COMMAND...
  local until=$((SECONDS + $1)) what="$2"
  shift 2
  until "$@"; do
    [ "$SECONDS" -lt "$until" ] || fail "not in time: $what"
    sleep 0.2
  done
}
# Every node is reachable and follows one leader, and a write is served
settled() {
  local found
  found="$(status)" || return 1
  [ "$(grep -o '"reachable":true' <<<"$found" | wc -l)" = 3 ] && grep -q '"role":"leader"' <<<"$found" &&
    [ "$(grep -o '"leader":[0-9]*' <<<"$found" | sort -u | wc -l)" = 1 ] && echo x | "$NEW_BIN" session put probe >/dev/null 2>&1
}
in_force() { [ "$(each cluster_version)" = "$1 $1 $1 " ]; }

say "old: $("$OLD_BIN" --version) of $old_commit; new: $("$NEW_BIN" --version) of $new_commit"
for node in 1 2 3; do start "$node" "$OLD_BIN"; done
until_true 60 "three nodes of the old build serve" settled
before="$(each cluster_version)"
[ "$(sort -u <<<"${before// /$'\n'}" | grep -c .)" = 1 ] || fail "one version in force: $before"
before="${before%% *}"
old_max="$(each cluster_version_max)" old_max="${old_max%% *}"

"$OLD_BIN" bench agent-sessions --endpoints "$endpoints" --callers 8 --runs 1 --seconds "${LOAD_SECONDS:-45}" --settle 0s -o json \
  >"$dir/agents.json" 2>"$dir/agents.err" &
agents=$!
background+=("$agents")
# Raises a counter until it is stopped; every version must be the next one. The number of the last one acknowledged is the file's.
counter() {
  local next=1
  echo 1 | "$NEW_BIN" session put counter >/dev/null || return 1
  while [ ! -e "$dir/stop" ]; do
    next=$((next + 1))
    echo "$next" | "$NEW_BIN" session cas counter --expect $((next - 1)) >/dev/null 2>"$dir/counter.err" || return 1
    echo "$next" >"$dir/counter.new" && mv "$dir/counter.new" "$dir/counter"
  done
}
counter &
counting=$!
background+=("$counting")
count() { cat "$dir/counter" 2>/dev/null || echo 0; }
goes_on() { # The load has made progress since
  local seen
  seen="$(count)"
  kill -0 "$agents" 2>/dev/null || fail "the agents ended before the upgrade did: $(cat "$dir/agents.err" "$dir/agents.json")"
  until_true 60 "the counter rises from $seen" test_count "$((seen + 5))"
}
test_count() { kill -0 "$counting" 2>/dev/null || fail "the counter failed: $(cat "$dir/counter.err")"; [ "$(count)" -ge "$1" ]; }

# What the new build knows decides how its nodes are started.
known=()
goes_on
for node in 1 2 3; do
  in_force "$before" || fail "the version rose before node $node was new: $(each cluster_version)"
  stop "$node"
  start "$node" "$NEW_BIN" "${known[@]}"
  until_true 60 "node $node serves with the others" settled
  if [ "$node" = 1 ]; then
    new_max="$(each cluster_version_max)" new_max="${new_max%% *}"
    if [ "$new_max" = "$old_max" ]; then
      known=(--test-version)
      stop 1
      start 1 "$NEW_BIN" "${known[@]}"
      until_true 60 "node 1 serves with the others" settled
      new_max="$(each cluster_version_max)" new_max="${new_max%% *}"
    fi
    [ "$new_max" -gt "$old_max" ] || fail "the new build knows no newer version: old=$old_max new=$new_max"
  fi
  say "node $node is new (${known[*]:-no flag}); in force: $(each cluster_version)"
  goes_on
done
until_true 60 "the version rises to $new_max" in_force "$new_max"
say "every node is new, and the cluster version rose from $before to $new_max"
goes_on

wait "$agents" || fail "the agents: $(cat "$dir/agents.err" "$dir/agents.json")"
failures="$(grep -o '"failures":[^,}]*' "$dir/agents.json" | sort -u | tr '\n' ' ')"
touch "$dir/stop"
wait "$counting" || fail "the counter failed: $(cat "$dir/counter.err")"
last="$(count)"
found="$("$NEW_BIN" session get counter -o json)"
grep -q "\"version\":${last}[,}]" <<<"$found" || fail "the counter was acknowledged up to $last, and there is $found"
say "no acknowledged write is lost: counter $last; agents: $(grep -o '"audit":{[^}]*}' "$dir/agents.json"); $failures"

stop 1
start 1 "$OLD_BIN"
gone() { ! kill -0 "${pids[1]}" 2>/dev/null; }
until_true 60 "the old build ends" gone
code=0
wait "${pids[1]}" || code=$?
unset "pids[1]"
[ "$code" != 0 ] || fail "a node of the old build ended with 0"
why="$(tail -n 3 "$dir/1.log")"
grep -q "cluster version" <<<"$why" || fail "it does not say why: $why"
say "the old build is refused with exit code $code: $(grep "cluster version" <<<"$why" | tail -n 1)"
start 1 "$NEW_BIN" "${known[@]}"
until_true 60 "node 1 is new again" settled
equal() { [ "$(status | grep -o '"digest":"[0-9a-f]*"' | sort | uniq -c | awk '{print $1}')" = 3 ] && [ "$(each applied | tr ' ' '\n' | sort -u | grep -c .)" = 1 ]; }
until_true 60 "equal digests at one index" equal
say "upgraded from $old_commit to $new_commit"

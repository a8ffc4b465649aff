#!/usr/bin/env bash
# Simulates clusters, one process per seed, on all cores; a line that replays each seed that fails, and a summary.
#
#   scripts/sim.sh --seeds A..B       these seeds, both ends included (default: 1..200)
#   scripts/sim.sh --seeds-file F     the seeds of a file: the first word of each line that is no comment
#     --secs N        seconds of virtual time with faults (default: 30)
#     --nodes 3|5     that many nodes, whatever the seed says
#     --minutes M     no new seed is begun after so long
#     --enough M      nor after so long, once every floor is reached
#     --at-least N    but the first N are, however long they take
#     --floors F      fail unless every line `floor point` of F was reached by all seeds together
#     --twice yes     each seed twice: both runs must give the same trace
#     --replay S      one seed, with what happened, in order of time
#
# SIM_BIN names a built test binary; otherwise it is built, with the profile `sim` and the feature `mutants`, which plants nothing by
# itself and lets scripts/mutants.sh use the same build. SIM_JOBS: processes at a time (default: one per core).
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

usage() { sed -n '2,16s/^# \{0,1\}//p' "$0" >&2; exit 2; }

seeds="1..200" file="" secs=30 nodes="" minutes="" enough="" floors="" replay="" twice="" at_least=0
while [ $# -gt 0 ]; do
  [ $# -ge 2 ] || usage
  case "$1" in
    --seeds) seeds="$2" ;;
    --seeds-file) file="$2" ;;
    --secs) secs="$2" ;;
    --nodes) nodes="$2" ;;
    --minutes) minutes="$2" ;;
    --at-least) at_least="$2" ;;
    --enough) enough="$2" ;;
    --floors) floors="$2" ;;
    --replay) replay="$2" ;;
    --twice) twice="$2" ;;
    *) usage ;;
  esac
  shift 2
done
for number in "$secs" "${nodes:-3}" "${minutes:-1}" "${enough:-1}" "${replay:-1}" "$at_least"; do
  [[ "$number" =~ ^[0-9]+$ ]] || usage
done
[ -z "$enough" ] || [ -n "$floors" ] || usage
[ -n "$file" ] || [[ "$seeds" =~ ^[0-9]+\.\.[0-9]+$ ]] || usage

unset RUSTFLAGS
if [ -z "${SIM_BIN:-}" ]; then
  SIM_BIN="$(test_program faults --profile sim --features mutants)"
fi
export SIM_BIN SIM_SECS="$secs"
if [ -n "$nodes" ]; then export SIM_NODES="$nodes"; fi

if [ -n "$replay" ]; then
  SIM_SEED="$replay" SIM_TRACE=1 exec "$SIM_BIN" --exact sim::every_seed_holds --nocapture
fi

if [ -n "$file" ]; then
  list="$(awk '!/^#/ && NF { print $1 }' "$file")"
  name="$file"
else
  list="$(seq "${seeds%%..*}" "${seeds##*..}")"
  name="$seeds"
fi
[ -n "$list" ] || { echo "no seeds in $name" >&2; exit 2; }

out="$(mktemp -d)"
trap 'rm -rf "$out"' EXIT
export SIM_OUT="$out" SIM_FLOORS="$floors" SIM_BEHIND=$(($(head -n 1 <<<"$list") + at_least))
SIM_UNTIL=$((minutes ? $(date +%s) + minutes * 60 : 0))
SIM_ENOUGH=$((enough ? $(date +%s) + enough * 60 : SIM_UNTIL))
SIM_TOTAL="$(wc -l <<<"$list")"
export SIM_UNTIL SIM_ENOUGH SIM_TOTAL SIM_TWICE="$twice"

# simulate SEED FILE; a seed that hangs in real time is a failure too.
simulate() {
  SIM_SEED="$1" timeout --foreground -k 5 300 "$SIM_BIN" --exact sim::every_seed_holds --nocapture >"$2" 2>&1
}

# summary WALL_MS FAILED: what all seeds so far did and saw; fails where a floor is not reached.
summary() {
  awk -v secs="$SIM_SECS" -v floors="$SIM_FLOORS" -v wall_ms="$1" -v failed="$2" '
    # name={"point": count, ..} is the last kind of field of a line.
    function counts(line, name, into,   body, parts, n, i, at) {
      if (!match(line, name "=\\{[^}]*\\}")) return
      body = substr(line, RSTART + length(name) + 2, RLENGTH - length(name) - 3)
      n = split(body, parts, ", ")
      for (i = 1; i <= n; i++) {
        at = match(parts[i], /": [0-9]+$/)
        if (at) into[substr(parts[i], 2, at - 2)] += substr(parts[i], at + 3)
      }
    }
    function number(line, name) { return match(line, " " name "=[0-9]+") ? substr(line, RSTART + length(name) + 2, RLENGTH - length(name) - 2) : 0 }
    function print_sorted(title, from,   key, total, command) {
      for (key in from) total += from[key]
      printf "%s: %d\n", title, total
      command = "sort -rn"
      for (key in from) printf "%8d  %s\n", from[key], key | command
      close(command)
    }
    {
      seeds++; operations += number($0, "operations"); acknowledged += number($0, "acknowledged"); unknown += number($0, "unknown")
      busy += number($0, "cpu_ms"); virtual += number($0, "virtual_ms"); five += $0 ~ / nodes=5 /
      counts($0, "faults", faults); counts($0, "saw", saw)
    }
    END {
      if (!virtual) virtual = seeds * secs * 1000
      print_sorted("faults", faults)
      print_sorted("sometimes", saw)
      for (key in faults) total += faults[key]
      printf "simulation: seeds=%d five_nodes=%d failed=%d virtual_hours=%.2f operations=%d acknowledged=%d ambiguous=%.2f%% faults=%d seconds=%d rate=%.1f (virtual seconds per second of a core)\n", seeds, five, failed, virtual / 3.6e6, operations, acknowledged, operations ? 100 * unknown / operations : 0, total, wall_ms / 1000, busy ? virtual / busy : 0
      missed = 0
      if (floors != "") {
        while ((getline line < floors) > 0) {
          if (line ~ /^#/ || line == "") continue
          floor = line + 0; point = line; sub(/^[0-9]+ +/, "", point)
          if (saw[point] + faults[point] < floor) { printf "FAILED: seen %d times, floor %d: %s\n", saw[point] + faults[point], floor, point; missed = 1 }
        }
      }
      exit missed
    }' "$SIM_OUT/lines"
}

# Whether no new seed is to be begun.
is_over() {
  local now
  now="$(date +%s)"
  if [ -e "$SIM_OUT/over" ] || [ "$now" -ge "$SIM_UNTIL" ]; then return 0; fi
  if [ "$now" -lt "$SIM_ENOUGH" ] || ! summary 0 0 >"/dev/null"; then return 1; fi
  touch "$SIM_OUT/over"
}

one() {
  local seed="$1" done_so_far failed_so_far
  if [ "$SIM_UNTIL" -gt 0 ] && [ "$seed" -ge "$SIM_BEHIND" ] && is_over; then return; fi
  if simulate "$seed" "$SIM_OUT/$seed.out"; then
    if [ -n "$SIM_TWICE" ]; then
      simulate "$seed" "$SIM_OUT/$seed.again" || true
      if [ "$(grep -o 'trace=[0-9a-f]*' "$SIM_OUT/$seed.out")" != "$(grep -o 'trace=[0-9a-f]*' "$SIM_OUT/$seed.again")" ]; then
        echo "$seed" >>"$SIM_OUT/failed"
        echo "VIOLATION seed=$seed: two runs differ"
      fi
      rm -f "$SIM_OUT/$seed.again"
    fi
    grep '^seed=' "$SIM_OUT/$seed.out" >>"$SIM_OUT/lines"
  else
    echo "$seed" >>"$SIM_OUT/failed"
    grep '^seed=' "$SIM_OUT/$seed.out" >>"$SIM_OUT/lines" || true
    # What a panic says stands on the line after it.
    grep -E -A1 '^seed=|VIOLATION|^replay|panicked' "$SIM_OUT/$seed.out" || echo "VIOLATION seed=$seed: it did not end within 300 s"
  fi
  rm -f "$SIM_OUT/$seed.out"
  echo >>"$SIM_OUT/done"
  done_so_far="$(wc -l <"$SIM_OUT/done")"
  if [ $((done_so_far % 50)) -eq 0 ]; then
    failed_so_far="$(wc -l 2>/dev/null <"$SIM_OUT/failed" || echo 0)"
    echo "... $done_so_far of $SIM_TOTAL seeds, $failed_so_far failed"
  fi
}
export -f simulate summary is_over one
began="$(date +%s%N)"
# shellcheck disable=SC2016 # The inner shell expands it.
in_group xargs -P "${SIM_JOBS:-$(nproc)}" -I{} bash -c 'one "$1"' _ {} <<<"$list"
wall_ms=$((($(date +%s%N) - began) / 1000000))

failed="$(sort -n "$out/failed" 2>/dev/null | tr '\n' ' ' || true)"
status=0
if [ -e "$out/lines" ]; then
  summary "$wall_ms" "$(wc -w <<<"$failed")" || status=1
fi
echo "failed: ${failed:-none}"
[ -z "$failed" ] && [ "$status" -eq 0 ]

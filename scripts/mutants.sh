#!/usr/bin/env bash
# Plants each bug of tests/sim/mutants.txt, one at a time, and runs what has to catch it, until it is caught. A survivor is a failure:
# of the tests, not of the code. Without a bug the same catchers must pass.
#
#   scripts/mutants.sh              every bug, until the first seed that catches it, at most 40
#   scripts/mutants.sh --rates N    N seeds of every bug that the simulation has to catch, and how many of them did
#   scripts/mutants.sh --only NAME  one bug; --seeds-max N: at most so many seeds
#
# What computes runs in the build of the simulation, profile `sim`; what waits, in that of `cargo test`. Both have the feature `mutants`, and
# QUORATE_MUTANT chooses the bug. SIM_JOBS: bugs at a time (default: one per core).
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

usage() { sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2; }
seeds_max=40 only="" rates=""
while [ $# -gt 0 ]; do
  [ $# -ge 2 ] || usage
  case "$1" in
    --rates) rates="$2" seeds_max="$2" ;;
    --seeds-max) seeds_max="$2" ;;
    --only) only="$2" ;;
    *) usage ;;
  esac
  shift 2
done
for number in "${rates:-1}" "$seeds_max"; do
  [[ "$number" =~ ^[1-9][0-9]*$ ]] || usage
done

unset RUSTFLAGS
out="$(mktemp -d)"
trap 'rm -rf "$out"' EXIT
awk -v only="$only" -v rates="$rates" '{ sub(/ *(#.*)?$/, "") } NF && (only == "" || $1 == only) && (rates == "" || $2 == "sim")' tests/sim/mutants.txt >"$out/list"
[ -s "$out/list" ] || { echo "no such bug in tests/sim/mutants.txt: $only" >&2; exit 2; }
# A bug that nobody is asked to catch proves nothing.
uncaught="$(sed -n 's/^    [A-Za-z]* = "\([a-z-]*\)",$/\1/p' src/mutant/mod.rs | grep -vxFf <(awk '!/^#/ { print $1 }' tests/sim/mutants.txt) || true)"
[ -z "$uncaught" ] || { echo "FAILED: planted, but not in tests/sim/mutants.txt: $uncaught" >&2; exit 1; }
# build_programs FLAGS CATCHER...: the paths of those that are asked for, each with its name.
build_programs() {
  local flags="$1" catcher programs=()
  shift
  for catcher; do
    if awk -v catcher="$catcher" '$2 == catcher { found = 1 } END { exit !found }' "$out/list"; then
      case "$catcher" in
        lib) programs+=(--lib) ;;
        sim) programs+=(--test faults) ;;
        *) programs+=(--test "$catcher") ;;
      esac
    fi
  done
  # shellcheck disable=SC2086 # Several words.
  [ "${#programs[@]}" -eq 0 ] || cargo test --locked $flags --no-run --message-format=json "${programs[@]}" |
    sed -n 's/.*"executable":"\([^"]*\/\([a-z_]*\)-[0-9a-f]*\)".*/\2 \1/p' | sed 's/^quorate /lib /' >>"$out/binaries"
}
build_programs "--profile sim" sim engine faults threads
build_programs "" lib clients clusters processes
export MODEL_WHOLE=1 MUTANTS_OUT="$out" MUTANTS_SEEDS_MAX="$seeds_max" MUTANTS_RATES="$rates"

binary() { awk -v name="$1" '$1 == name { print $2 }' "$MUTANTS_OUT/binaries" | tail -n 1; }

# Whether one seed of the simulation, with these kinds of faults, finds nothing; what it found is in the file.
passes_seed() {
  local seed="$1" faults="$2" to="$3"
  (
    if [ "$faults" != - ]; then export SIM_FAULTS="$faults"; fi
    SIM_SEED="$seed" SIM_SECS=30 timeout --foreground -k 5 60 "$(binary faults)" --exact sim::every_seed_holds --nocapture >"$to" 2>&1
  )
}

# Whether the tests of a binary that have this in their names all pass, and there are some.
passes_tests() {
  timeout --foreground -k 5 200 "$(binary "$1")" "$2" >"$3" 2>&1 && grep -qE '^running [1-9]' "$3"
}

# The control: what is to catch finds nothing where nothing is planted.
control() {
  local to="$MUTANTS_OUT/control-$1-$2-$3"
  if [ "$1" = sim ]; then passes_seed "$2" "$3" "$to" && return; else passes_tests "$1" "$2" "$to" && return; fi
  echo "FAILED without a bug: $1 $2 $3" >>"$MUTANTS_OUT/failed"
  tail -n 20 "$to" >>"$MUTANTS_OUT/failed"
}

# What a run's file $1 says first of what $2 matches, shortened by $3.
reason() {
  local found
  found="$(grep -m 1 -oE "$2" "$1" | sed "$3")"
  echo "${found:-it did not end in time}"
}

# Writes a line that says by what a bug was caught and after how many seeds.
plant() {
  local name="$1" catcher="$2" what="$3" faults="${4:--}" to="$MUTANTS_OUT/run-$1" seed seeds=0 caught=0 first="" started=$SECONDS
  export QUORATE_MUTANT="$name"
  if [ "$catcher" = sim ]; then
    for ((seed = what; seeds < MUTANTS_SEEDS_MAX; seed++)); do
      seeds=$((seeds + 1))
      passes_seed "$seed" "$faults" "$to" && continue
      caught=$((caught + 1))
      if [ -z "$first" ]; then
        first="seed $seed: $(reason "$to" 'VIOLATION seed=[0-9]+: .{0,100}' 's/^[^:]*: //')"
      fi
      if [ -z "$MUTANTS_RATES" ]; then break; fi
    done
  elif ! passes_tests "$catcher" "$what" "$to"; then
    caught=1
    # Where loom finds a deadlock, the process is aborted before a test can fail.
    first="$catcher: $(reason "$to" '^(test .* FAILED|deadlock)' 's/^test \(.*\) \.\.\. FAILED/\1/')"
  fi
  if grep -qE "no such mutant|no such fault" "$to"; then caught=0 first="UNKNOWN name of a bug or fault"; fi
  if [ "$caught" -eq 0 ]; then first="SURVIVED ${first:-$catcher $what $faults}"; fi
  printf '%d %-28s %6d %5d %6d  %s\n' "$caught" "$name" $((SECONDS - started)) "$seeds" "$caught" "$first" >"$MUTANTS_OUT/result-$name"
}
export -f binary passes_seed passes_tests control reason plant

jobs="${SIM_JOBS:-$(nproc)}"
# A seed of the usual faults is one that the simulation runs anyway.
awk '$2 != "sim" || NF > 3 { print $2, $3, (NF > 3 ? $4 : "-") }' "$out/list" | sort -u >"$out/controls"
# shellcheck disable=SC2016 # The inner shell expands them.
in_group xargs -r -P "$jobs" -L 1 bash -c 'control "$@"' _ <"$out/controls"
if [ -e "$out/failed" ]; then cat "$out/failed"; exit 1; fi
# shellcheck disable=SC2016 # The same.
in_group xargs -r -P "$jobs" -L 1 bash -c 'plant "$@"' _ <"$out/list"
total=0 caught=0
printf '%-28s %6s %5s %6s  %s\n' bug s seeds caught by
while read -r name _; do
  total=$((total + 1))
  read -r was_caught line <"$out/result-$name"
  if [ "$was_caught" -gt 0 ]; then caught=$((caught + 1)); fi
  echo "$line"
done <"$out/list"
echo "mutants: planted=$total caught=$caught"
[ "$caught" -eq "$total" ]

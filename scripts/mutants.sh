#!/usr/bin/env bash
# Plants each bug of tests/sim/mutants.txt, one at a time, and runs what has to catch it, until it is caught. A survivor is a failure:
# of the tests, not of the code. Without a bug the same catchers must pass.
#
#   scripts/mutants.sh            every bug, up to 120 seeds each
#   scripts/mutants.sh --quick    up to 40 seeds each
#   scripts/mutants.sh --only N   one bug
#
# Everything runs in one build: profile `sim`, feature `mutants`, the bug chosen by QUORATE_MUTANT.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
seeds_max=120 only="" secs=30
while [ $# -gt 0 ]; do
  case "$1" in
    --quick) seeds_max=40 ;;
    --only) [ $# -ge 2 ] || usage; only="$2"; shift ;;
    *) usage ;;
  esac
  shift
done

unset RUSTFLAGS
readonly list=tests/sim/mutants.txt
out="$(mktemp -d)"
trap 'rm -rf "$out"' EXIT
catchers="$(awk '!/^#/ && NF { print $2 }' "$list" | sort -u)"
build=(cargo test --locked --profile sim --features mutants --no-run --message-format=json)
for catcher in $catchers; do build+=(--test "$catcher"); done
"${build[@]}" | sed -n 's/.*"executable":"\([^"]*\/\([a-z_]*\)-[0-9a-f]*\)".*/\2 \1/p' >"$out/binaries"
binary() { awk -v name="$1" '$1 == name { print $2 }' "$out/binaries" | tail -n 1; }
jobs="$(nproc)"

# Whether this seed notices; an unknown name of a bug is no notice.
seed() {
  if SIM_SEED="$1" SIM_SECS="$secs" timeout -k 5 120 "$SIM_BIN" --exact every_seed_holds --nocapture >"$2/$1.out" 2>&1; then return; fi
  if grep -q "no such mutant" "$2/$1.out"; then echo "$1" >>"$2/unknown"; else echo "$1" >>"$2/caught"; fi
}
export -f seed
SIM_BIN="$(binary sim)"
export SIM_BIN secs

# Prints by what it was caught and after how many seeds; nothing if it was not.
by_seeds() {
  local first="$1" max="$2" dir="$3" done_so_far=0
  mkdir -p "$dir"
  while [ "$done_so_far" -lt "$max" ]; do
    # shellcheck disable=SC2016 # The inner shell expands them.
    seq $((first + done_so_far)) $((first + done_so_far + jobs - 1)) | xargs -P "$jobs" -I{} bash -c 'seed "$1" "$2"' _ {} "$dir"
    done_so_far=$((done_so_far + jobs))
    if [ -e "$dir/unknown" ]; then echo "no such mutant" >&2; return 1; fi
    if [ -e "$dir/caught" ]; then
      local at
      at="$(sort -n "$dir/caught" | head -n 1)"
      echo "seed $at: $(grep -m 1 -oE 'VIOLATION seed=[0-9]+: .{0,90}' "$dir/$at.out" | sed 's/^[^:]*: //' || echo 'did not end') ($done_so_far seeds)"
      return
    fi
  done
}

by_tests() {
  local bin filter="$2"
  bin="$(binary "$1")"
  [ -n "$bin" ] || { echo "no test binary $1" >&2; return 1; }
  if timeout -k 5 200 "$bin" "$filter" >"$out/tests" 2>&1; then return; fi
  if grep -q "no such mutant" "$out/tests"; then echo "no such mutant" >&2; return 1; fi
  grep -m 1 -oE '^test .* FAILED' "$out/tests" | sed 's/^test \(.*\) \.\.\. FAILED/\1/' || echo "did not end"
}

# The control: what is to catch finds nothing where nothing is planted.
while read -r name catcher what; do
  if [ -n "$only" ] && [ "$name" != "$only" ]; then continue; fi
  [ "$catcher" != sim ] || continue
  found="$(by_tests "$catcher" "$what")"
  [ -z "$found" ] || { echo "FAILED without a bug: $catcher $what: $found"; exit 1; }
  grep -qE '^running [1-9]' "$out/tests" || { echo "FAILED: no test of $catcher is named $what"; exit 1; }
done < <(awk '!/^#/ && NF' "$list" | sort -u -k2,3)

total=0 survived=0
printf '%-28s %8s  %s\n' "mutant" "seconds" "caught by"
while read -r name catcher what; do
  if [ -n "$only" ] && [ "$name" != "$only" ]; then continue; fi
  started=$SECONDS total=$((total + 1))
  export QUORATE_MUTANT="$name"
  if [ "$catcher" = sim ]; then found="$(by_seeds "$what" "$seeds_max" "$out/$name")"; else found="$(by_tests "$catcher" "$what")"; fi
  unset QUORATE_MUTANT
  if [ -z "$found" ]; then survived=$((survived + 1)) found="SURVIVED $catcher $what"; fi
  printf '%-28s %8d  %s\n' "$name" $((SECONDS - started)) "$found"
done < <(awk '!/^#/ && NF' "$list")
echo "mutants: planted=$total caught=$((total - survived)) survived=$survived"
[ "$survived" -eq 0 ] && [ "$total" -gt 0 ]

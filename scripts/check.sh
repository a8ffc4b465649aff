#!/usr/bin/env bash
# The gate: what must pass before a commit, and what CI runs. Needs cargo with rustfmt and clippy, nothing else.
#
#   scripts/check.sh              everything
#   scripts/check.sh --no-tests   all but the tests, for a caller that has run `cargo test` itself
#   scripts/check.sh --no-long    all but the simulation, its repetition, chaos and the planted bugs
#
# It prints the seconds of each stage and, at the end, how many tests, seeds, faults and planted bugs there were: fewer than the committed
# floor is a failure, since a suite that silently stopped running proves nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

# Raise it whenever tests are added; lower it only together with the tests that go.
readonly TESTS_FLOOR=1000

# New seeds that are simulated for 30 s of virtual time each: for so many minutes, longer where a rare point was not seen yet, and at least
# the floor. Where they begin follows from the commit, so that every change explores others and a failure can be had again.
readonly SIM_MINUTES=6
readonly SIM_MINUTES_MAX=15
readonly SEEDS_FLOOR=120
readonly FAULTS_FLOOR=2000

# Faults to real processes, of so many kinds at least: where strace or libfaketime is missing, others take the place of theirs.
readonly CHAOS_FAULTS_FLOOR=60
readonly CHAOS_KINDS_FLOOR=10

# Bugs that are planted; every one must be caught.
readonly MUTANTS_FLOOR=107

with_tests=yes with_long=yes
case "${1:-}" in
  "") ;;
  --no-tests) with_tests=no ;;
  --no-long) with_long=no ;;
  *) echo "usage: scripts/check.sh [--no-tests|--no-long]" >&2; exit 2 ;;
esac

# A RUSTFLAGS variable would replace the flags of .cargo/config.toml, without which the simulation does not compile.
unset RUSTFLAGS
log="$(mktemp)" long="$(mktemp)"
trap 'rm -f "$log" "$long"' EXIT
timings=""

stage() {
  local name="$1" started=$SECONDS
  shift
  echo "== $name"
  "$@" || { echo "FAILED: $name, after $((SECONDS - started)) s: $*" >&2; exit 1; }
  timings+="$(printf '%6d s  %s' "$((SECONDS - started))" "$name")"$'\n'
}

# The README's command, with the seconds of each test.
run_tests() {
  local host
  host="$(rustc -vV | sed -n 's/^host: //p' | tr a-z- A-Z_)"
  env "CARGO_TARGET_${host}_RUNNER=$PWD/scripts/time-tests.sh" cargo test --locked 2>&1 | tee "$log"
}

# The tests that took longest, with how long.
slowest() {
  sed -n 's/^test \(.*\) \.\.\. ok <\([0-9.]*\)s>$/\2 \1/p' "$log" | sort -rn | sed -n "1,$1p" | xargs -r printf '%8.1f s  %s\n'
}

simulate() {
  local first=$((16#$(git rev-parse --short=7 HEAD 2>/dev/null || date +%j%H%M) * 1000 + 1))
  echo "seeds from $first on"
  scripts/sim.sh --seeds "$first..$((first + 1999))" --secs 30 --enough "$SIM_MINUTES" --minutes "$SIM_MINUTES_MAX" \
    --at-least "$SEEDS_FLOOR" --floors tests/sim/sometimes.txt 2>&1 | tee -a "$long"
}

# `cargo test` has taken any one fault in each scope, and some of all scripts; optimized, any two faults and all scripts are affordable.
small_scope() {
  MODEL_WHOLE=1 cargo test --locked --profile sim --features mutants --test engine exhaustive
}

# `cargo test` has followed each fourth crash of the state, in one way, by one at each point of the next start; here each, in every way.
second_crashes() {
  STATE_CRASHES=all cargo test --locked --profile sim --features mutants --test engine state::crash
}

plant_bugs() {
  scripts/mutants.sh 2>&1 | tee -a "$long"
}

# The kinds of runs that once failed.
simulate_failed_before() {
  scripts/sim.sh --seeds-file tests/sim/seeds.txt --secs 30
}

# Real processes; the library is the build that the simulation made.
real_processes() {
  QUORATE_CHAOS_BUILD="--profile sim --features mutants" scripts/chaos/run.sh --ci 2>&1 | tee -a "$long"
}

# at_least NAME NUMBER FLOOR
at_least() {
  local ran="${2:-0}"
  echo "$1: ran=$ran floor=$3"
  if [ "$ran" -lt "$3" ]; then
    echo "FAILED: fewer than the floor: $1 ran=$ran floor=$3" >&2
    exit 1
  fi
}

# The number behind NAME= in the last line that begins with LINE.
figure() {
  sed -n "s/^$1: .*\b$2=\([0-9]*\).*/\1/p" "$long" | tail -n 1
}

docs() {
  RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps
}

# The README's code, in a crate with the dependencies that it names and no others.
embedder() {
  QUORATE_EMBEDDER=1 cargo test --locked --test processes -- --exact cli::readme::what_the_readme_has_an_embedder_write_compiles_with_only_what_it_names
}

# Every feature compiles alone: an embedder takes only some of them.
feature() {
  cargo check --locked --lib --no-default-features --features "$1"
}

# Licences, sources, duplicates and bans need no network; known faults need a copy of the database, which `cargo deny fetch` makes.
judge_dependencies() {
  if ! cargo deny --version >/dev/null 2>&1; then
    [ -z "${QUORATE_DENY_REQUIRED:-}" ] || { echo "cargo-deny is missing" >&2; return 1; }
    echo "SKIPPED: what may be built in is judged by cargo-deny, which is not installed"
    return 0
  fi
  cargo deny --locked --offline check licenses bans sources
  if compgen -G "${CARGO_HOME:-$HOME/.cargo}/advisory-dbs/*/.git" >/dev/null; then
    cargo deny --locked --offline check advisories
  else
    echo "SKIPPED: no copy of the database of advisories"
  fi
}

stage "format" cargo fmt --check
stage "clippy" cargo clippy --locked --all-targets -- -D warnings
if [ "$with_tests" = yes ]; then
  stage "tests" run_tests
  stage "tests of stand-ins" cargo test --locked --package base2histogram
fi
if [ "$with_long" = yes ]; then
  stage "simulation" simulate
  stage "simulation of seeds that failed once" simulate_failed_before
  stage "chaos" real_processes
  stage "the same seed, the same run" scripts/sim.sh --seeds 1..10 --secs 10 --twice yes
  stage "every interleaving of small scope" small_scope
  stage "every second crash of the state" second_crashes
  stage "mutants" plant_bugs
fi
stage "docs" docs
for features in machine wire client client,bob server cli; do
  stage "feature $features" feature "$features"
done
stage "what an embedder writes" embedder
stage "dependencies of a client" scripts/client-deps.sh
stage "dependencies" judge_dependencies

echo "== seconds"
printf '%s' "$timings"
if [ "$with_tests" = yes ]; then
  echo "== the slowest tests"
  slowest 10
  ran="$(awk '/^test result: /{ total += $4 + $6 } END { print total + 0 }' "$log")"
  at_least tests "$ran" "$TESTS_FLOOR"
fi
if [ "$with_long" = yes ]; then
  at_least seeds "$(figure simulation seeds)" "$SEEDS_FLOOR"
  at_least faults "$(figure simulation faults)" "$FAULTS_FLOOR"
  at_least "faults to real processes" "$(figure chaos faults)" "$CHAOS_FAULTS_FLOOR"
  at_least "kinds of faults to real processes" "$(figure chaos kinds)" "$CHAOS_KINDS_FLOOR"
  at_least mutants "$(figure mutants caught)" "$MUTANTS_FLOOR"
fi
echo "all checks passed"

#!/usr/bin/env bash
# The gate: what must pass before a commit, and what CI runs. Needs cargo with rustfmt and clippy, nothing else.
#
#   scripts/check.sh              everything
#   scripts/check.sh --no-tests   all but the tests, for a caller that has run `cargo test` itself
#
# It prints the seconds of each stage and, at the end, how many tests ran: fewer than the committed floor is a failure, since a suite
# that silently stopped running proves nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

# Raise it whenever tests are added; lower it only together with the tests that go.
readonly TESTS_FLOOR=340

with_tests=yes
case "${1:-}" in
  "") ;;
  --no-tests) with_tests=no ;;
  *) echo "usage: scripts/check.sh [--no-tests]" >&2; exit 2 ;;
esac

# A RUSTFLAGS variable would replace the flags of .cargo/config.toml, without which the simulation does not compile.
unset RUSTFLAGS
log="$(mktemp)"
trap 'rm -f "$log"' EXIT
timings=""

stage() {
  local name="$1" started=$SECONDS
  shift
  echo "== $name"
  "$@" || { echo "FAILED: $name, after $((SECONDS - started)) s: $*" >&2; exit 1; }
  timings+="$(printf '%6d s  %s' "$((SECONDS - started))" "$name")"$'\n'
}

run_tests() {
  cargo test --locked 2>&1 | tee "$log"
}

docs() {
  RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps
}

# Every feature compiles alone: an embedder takes only some of them.
feature() {
  cargo check --locked --lib --no-default-features --features "$1"
}

stage "format" cargo fmt --check
stage "clippy" cargo clippy --locked --all-targets -- -D warnings
if [ "$with_tests" = yes ]; then
  stage "tests" run_tests
  stage "tests of stand-ins" cargo test --locked --package base2histogram
fi
stage "docs" docs
for features in machine wire client client,bob server cli; do
  stage "feature $features" feature "$features"
done
stage "dependencies of a client" scripts/client-deps.sh

echo "== seconds"
printf '%s' "$timings"
if [ "$with_tests" = yes ]; then
  ran="$(awk '/^test result: /{ total += $4 + $6 } END { print total + 0 }' "$log")"
  echo "tests: ran=$ran floor=$TESTS_FLOOR"
  if [ "$ran" -lt "$TESTS_FLOOR" ]; then
    echo "FAILED: fewer tests ran than the floor: ran=$ran floor=$TESTS_FLOOR" >&2
    exit 1
  fi
fi
echo "all checks passed"

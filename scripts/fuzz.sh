#!/usr/bin/env bash
# Searches for bytes that break a decoder, from the seeds in git on:
#   scripts/fuzz.sh [TARGET] [--minutes M]
# All targets in turn, one minute each, by default. Needs cargo-fuzz (cargo install cargo-fuzz) and a C++ compiler; stable Rust will do.
# What breaks one goes to tests/fuzz/seeds/TARGET/ first, where cargo test replays it for ever; then fix the decoder.
set -euo pipefail
cd "$(dirname "$0")/.."

dir=tests/fuzz/cargo-fuzz
minutes=1
target=""
while [ $# -gt 0 ]; do
  case "$1" in
    --minutes) minutes="${2:?--minutes needs a number}"; shift 2 ;;
    -*) echo "usage: scripts/fuzz.sh [TARGET] [--minutes M]" >&2; exit 2 ;;
    *) target="$1"; shift ;;
  esac
done
command -v cargo-fuzz > /dev/null || { echo "cargo-fuzz is missing: cargo install cargo-fuzz" >&2; exit 2; }
targets="$(for file in "$dir"/fuzz_targets/*.rs; do basename "$file" .rs; done)"
if [ -n "$target" ]; then
  [ -f "$dir/fuzz_targets/$target.rs" ] || { echo "there is no target $target, but:" $targets >&2; exit 2; }
  targets="$target"
fi

failed=""
for name in $targets; do
  # The sanitizers need a nightly compiler; panics and hangs are found without.
  mkdir -p "$dir/corpus/$name"
  log="$(mktemp)"
  if cargo fuzz run --fuzz-dir "$dir" -s none "$name" "$dir/corpus/$name" "tests/fuzz/seeds/$name" -- \
    -max_total_time="$((minutes * 60))" -timeout=10 -max_len=65536 -print_final_stats=1 > "$log" 2>&1; then
    echo "$name: $(sed -n 's/^stat::number_of_executed_units: */runs=/p' "$log"), nothing found"
  else
    failed="$failed $name"
    tail -n 30 "$log"
  fi
  rm -f "$log"
done
[ -z "$failed" ] || { echo "FAILED:$failed; inputs are in $dir/artifacts" >&2; exit 1; }

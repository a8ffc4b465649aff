#!/usr/bin/env bash
# Runs a program that cargo built. A test program says how long each test took: libtest does so on a stable toolchain only where this
# variable is set when the program runs. Usage: CARGO_TARGET_<HOST>_RUNNER=scripts/time-tests.sh cargo test
set -euo pipefail
case "$1" in
  */deps/*) RUSTC_BOOTSTRAP=1 exec "$@" -Zunstable-options --report-time ;;
  *) exec "$@" ;;
esac

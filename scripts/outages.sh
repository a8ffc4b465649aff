#!/usr/bin/env bash
# Plays every outage of tests/process/outages with real processes and writes what the signals said into the table of
# src/docs/operations.md, "Signals in an outage". Commit a change of it only if you can explain it: `cargo test` compares.
# Wants promtool, libfaketime and the right to mount a file system in a namespace; a row that can't be played is left as it is.
set -euo pipefail
cd "$(dirname "$0")/.."
REWRITE=1 cargo test --locked --test processes outages:: -- --nocapture --test-threads 1
git diff --stat -- src/docs/operations.md

#!/usr/bin/env bash
# Regenerates src/wire/generated from proto/. Needs nothing but cargo: the compiler is a crate.
set -euo pipefail
cd "$(dirname "$0")/.."
REWRITE=1 cargo test --test tidy generated_code_is_current

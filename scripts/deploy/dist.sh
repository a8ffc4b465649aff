#!/usr/bin/env bash
# Builds what runs in production: target/dist/quorate, of which a fifth is left, and beside it target/dist/quorate.debug with what was
# taken out. Needs objcopy, which comes with the C compiler (binutils).
#
#   scripts/deploy/dist.sh
#
# Keep the two together for as long as the program runs anywhere. With both in one directory a panic names files and lines; without the
# second it names functions, and the lines are found later: addr2line --exe quorate.debug --functions --inlines ADDRESS.
set -euo pipefail
cd "$(dirname "$0")/../.."
case "${1:-}" in "") ;; *) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2 ;; esac

dir="${CARGO_TARGET_DIR:-target}/dist"
# The last step alone: what the program is made of stays as `cargo build --profile dist` left it.
cargo rustc --locked --profile dist --bin quorate -- -C strip=none
mv "$dir/quorate" "$dir/quorate.whole"
objcopy --only-keep-debug --compress-debug-sections "$dir/quorate.whole" "$dir/quorate.debug"
# Names of constants are of use to nobody.
objcopy --strip-debug --wildcard --strip-symbol 'anon.*' --add-gnu-debuglink="$dir/quorate.debug" "$dir/quorate.whole" "$dir/quorate"
rm "$dir/quorate.whole"
ls -l "$dir/quorate" "$dir/quorate.debug"

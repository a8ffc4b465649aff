# shellcheck shell=bash
# Sourced by the scripts beside it: builds the driver and runs one scenario of it. BENCH_DRIVER names one that is built already.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# The usage at the top of a script, without the leading '#'.
usage() { sed -n '2,/^$/s/^# \{0,1\}//p' "$1"; }

# The program, built as for production. Its path is the last line.
driver() {
  if [ -n "${BENCH_DRIVER:-}" ]; then echo "$BENCH_DRIVER"; return; fi
  cargo bench --locked --profile dist --bench peers --no-run --message-format=json |
    sed -n 's/.*"executable":"\([^"]*\/peers-[^"]*\)".*/\1/p' | tail -n 1
}

# Runs a scenario in place of this shell, so that a signal to the script reaches the driver, which cleans up.
bench() {
  local scenario="$1" program
  shift
  case " $* " in
    *" -h "* | *" --help "*) usage "$0"; echo; program="$(driver)"; exec "$program" --help ;;
  esac
  program="$(driver)"
  [ -x "$program" ] || { echo "the driver could not be built" >&2; exit 2; }
  exec "$program" "$scenario" "$@"
}

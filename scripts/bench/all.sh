#!/usr/bin/env bash
# Runs every script beside it, one after the other, and says at the end which bars were missed. About 40 minutes; --quick: 6.
#
#   scripts/bench/all.sh [--quick] [any option all of them take]
#
# Exit: 0 all bars reached, 1 one missed, 2 something could not be measured.

# shellcheck source=scripts/bench/lib.sh
. "$(dirname "$0")/lib.sh"
case " $* " in *" -h "* | *" --help "*) usage "$0"; exit 0 ;; esac
BENCH_DRIVER="$(driver)"
export BENCH_DRIVER
child=
trap 'if [ -n "$child" ]; then kill -TERM "$child" 2>/dev/null || true; wait "$child" || true; fi; exit 130' INT TERM HUP
worst=0
summary=""
for scenario in saves loads turns large memory restart agents; do
  echo "=== $scenario"
  # In the background, so that a signal is handled while it runs.
  "scripts/bench/$scenario.sh" "$@" &
  child=$!
  status=0
  wait "$child" || status=$?
  child=
  summary+="$(printf '%-8s exit %d' "$scenario" "$status")"$'\n'
  if [ "$status" -gt "$worst" ]; then worst="$status"; fi
done
printf '\n%s' "$summary"
exit "$worst"

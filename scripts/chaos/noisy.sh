#!/usr/bin/env bash
# A noisy tenant beside a quiet one, on three real nodes with certificates and tokens: it opens clients, saves ever new sessions, saves
# values of 15 MiB, loads them and reads nothing, and drips connections to every port, by one token with one prefix.
#
#   scripts/chaos/noisy.sh [--minutes M] [--alone SECONDS]      10 minutes beside, after 60 s alone
#
# It passes if the quiet tenant has no error, its saves and loads take at most three times as long as alone at the 99th percentile, and the
# leader stays. Exit status: 0 passed, 1 something is wrong, 2 usage.
# QUORATE_CHAOS_BUILD: what cargo builds with, "--profile dist" by default.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

minutes=10 alone=60
while [ $# -gt 0 ]; do
  case "$1" in
    --minutes) minutes="${2:?--minutes needs a number}"; shift 2 ;;
    --alone) alone="${2:?--alone needs seconds}"; shift 2 ;;
    -h | --help) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "unknown option: $1; see $0 --help" >&2; exit 2 ;;
  esac
done
[[ "$minutes" =~ ^[0-9]+$ && "$alone" =~ ^[0-9]+$ ]] || { echo "whole numbers are needed: $minutes, $alone" >&2; exit 2; }
unset RUSTFLAGS
read -ra build <<<"${QUORATE_CHAOS_BUILD:---profile dist}"
program="$(test_program processes "${build[@]}")"
[ -n "$program" ] || { echo "the program could not be built" >&2; exit 2; }
QUORATE_NOISY="$alone $((60 * minutes))"
export QUORATE_NOISY
# The program takes this process's place: the nodes end with it.
exec "$program" --exact noisy::a_quiet_tenant_is_served_beside_a_noisy_one --nocapture

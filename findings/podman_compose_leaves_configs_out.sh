#!/usr/bin/env bash
# podman-compose 1.6.0 (PyPI) with podman 4.3.1 (Debian 12), looked at on 2026-11-29.
#
# A service's `configs` (file into container, of the Compose specification) are left out of the container that it creates: no mount, no
# warning, exit status 0, though `podman-compose config` shows them. `secrets` of the same shape are mounted. A container then starts
# without its configuration file. A bind mount under `volumes` works in both. Seen, for a service with one of each:
#
#   config shows configs: yes
#   secrets mounted: 1
#   configs mounted: 0
#   said about configs: 0
#   exit status: 0
#
# Fails once that changes. Needs python3 with venv, PyPI, and podman, which is asked but creates nothing (--dry-run).
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet podman-compose==1.6.0
cd "$dir"
echo 'limit = 1' >settings.toml
echo 'not secret' >token.txt
cat >compose.yaml <<'YAML'
services:
  reader:
    image: docker.io/library/busybox:1.36
    command: ["cat", "/settings.toml"]
    configs:
      - source: settings
        target: /settings.toml
    secrets:
      - token
configs:
  settings:
    file: ./settings.toml
secrets:
  token:
    file: ./token.txt
YAML
shown=no
if venv/bin/podman-compose config 2>/dev/null | grep -q 'source: settings'; then shown=yes; fi
status=0
venv/bin/podman-compose --verbose --dry-run up >said.txt 2>&1 || status=$?
create=$(grep 'podman create' said.txt)
count() { grep -c "$1" <<<"$2" || true; }
seen="config shows configs: $shown
secrets mounted: $(count 'token.txt:/run/secrets/token' "$create")
configs mounted: $(count 'settings.toml:' "$create")
said about configs: $(grep -v 'podman create' said.txt | grep -ciE 'configs' || true)
exit status: $status"
echo "$seen"
[ "$seen" = "config shows configs: yes
secrets mounted: 1
configs mounted: 0
said about configs: 0
exit status: 0" ]

#!/usr/bin/env bash
# An embedder of the client builds no server: proves that none of the server's large dependencies are in its tree.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly absent=(openraft redb bincode axum clap)
tree=$(cargo tree --locked -e normal --no-default-features --features client,bob --prefix none --format '{p}' | sort -u)

hits=0
for name in "${absent[@]}"; do
    if grep -E "^${name}(-[a-z0-9-]+)? v" <<<"$tree"; then
        echo "the client depends on ${name}" >&2
        hits=1
    fi
done
[ "$hits" -eq 0 ] || exit 1
echo "client-deps: $(wc -l <<<"$tree") crates with features client,bob; none of: ${absent[*]}"

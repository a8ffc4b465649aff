# shellcheck shell=bash
# Sourced by other scripts.

# Writes a configuration to $3: a cluster named $1, whose nodes listen on loopback, each on three ports above $2. Prints where clients
# reach them.
configure_nodes() {
  local node port endpoints=""
  echo "name = \"$1\"" >"$3"
  for node in 1 2 3; do
    port=$(($2 + 10 * node))
    printf '[[node]]\nid = %s\nclient = "127.0.0.1:%s"\npeer = "127.0.0.1:%s"\nadmin = "127.0.0.1:%s"\n' \
      "$node" "$port" "$((port + 1))" "$((port + 2))" >>"$3"
    endpoints+="${endpoints:+,}127.0.0.1:$port"
  done
  echo "$endpoints"
}

# Runs a command in a process group of its own and waits for it, so that nothing of it outlives this shell, whatever ends it.
in_group() {
  local group
  set -m
  "$@" <&0 &
  group=$!
  set +m
  # shellcheck disable=SC2064 # This group, not a later one.
  trap "kill -TERM -- -$group 2>/dev/null || true; wait $group || true; exit 130" INT TERM HUP
  wait "$group"
}

# Builds the program as it runs in production. Prints its path.
production_program() {
  cargo build --locked --profile dist --bin quorate >&2 && echo "${CARGO_TARGET_DIR:-target}/dist/quorate"
}

# Builds the tests named $1, with what follows for cargo. Prints the path of the program, or nothing.
test_program() {
  local name="$1"
  shift
  cargo test --locked "$@" --test "$name" --no-run --message-format=json |
    sed -n "s/.*\"executable\":\"\([^\"]*\/$name-[^\"]*\)\".*/\1/p" | tail -n 1
}

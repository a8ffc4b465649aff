# shellcheck shell=bash
# Sourced by the scripts that run three nodes of their own.

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

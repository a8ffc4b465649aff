#!/usr/bin/env bash
# grpcio-reflection 1.78.0 (PyPI), looked at on 2026-11-29.
#
# Its client, ProtoReflectionDescriptorDatabase, calls grpc.reflection.v1alpha.ServerReflection and nothing else. To a server that offers
# only the current version, grpc.reflection.v1, it makes that one call, gets UNIMPLEMENTED and gives up: it does not try v1, which the
# package does not hold. So a server must offer both. Seen:
#
#   modules: ['v1alpha']
#   called: ['/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo']
#   ended: UNIMPLEMENTED
#
# Fails once that changes. Needs python3 with venv, and PyPI.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet grpcio==1.78.0 grpcio-reflection==1.78.0
cat >"$dir/look.py" <<'PYTHON'
import os
from concurrent import futures

import grpc
import grpc_reflection
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

called = []


class OnlyV1(grpc.GenericRpcHandler):
    """Notes each method that is called, and has none but v1's, which answers that there is no service."""

    def service(self, details):
        called.append(details.method)
        if details.method == "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":
            return grpc.stream_stream_rpc_method_handler(lambda requests, context: iter([b""]))
        return None


server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[OnlyV1()])
port = server.add_insecure_port("127.0.0.1:0")
server.start()
package = os.path.dirname(grpc_reflection.__file__)
print("modules:", sorted(name for name in os.listdir(package) if name.startswith("v")))
try:
    ProtoReflectionDescriptorDatabase(grpc.insecure_channel(f"127.0.0.1:{port}")).get_services()
    ended = "OK"
except grpc.RpcError as error:
    ended = error.code().name
print("called:", sorted(set(called)))
print("ended:", ended)
server.stop(None)
PYTHON
seen=$("$dir/venv/bin/python" "$dir/look.py")
echo "$seen"
expected="modules: ['v1alpha']
called: ['/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo']
ended: UNIMPLEMENTED"
[ "$seen" = "$expected" ] || { echo "it behaves otherwise now" >&2; exit 1; }

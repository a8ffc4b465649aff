"""A client of quorate made from proto/ alone: python client.py PROTO_DIR ENDPOINT...

Prints a line for each thing that was as it should be; anything else is an error.
"""

import importlib
import os
import sys
import tempfile

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_tools import protoc

TABLE = []
for byte in range(256):
    for _ in range(8):
        byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
    TABLE.append(byte)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def generated(proto):
    out = tempfile.mkdtemp()
    files = ["quorate/v1/sessions.proto", "quorate/v1/operations.proto"]
    assert protoc.main(["", f"-I{proto}", f"--python_out={out}", f"--grpc_python_out={out}", *files]) == 0
    sys.path.insert(0, out)
    return importlib.import_module("quorate.v1.sessions_pb2"), importlib.import_module("quorate.v1.sessions_pb2_grpc")


def info_of(error):
    """The `ErrorInfo` of a refusal."""
    [raw] = [value for key, value in error.trailing_metadata() if key == "grpc-status-details-bin"]
    status = status_pb2.Status.FromString(raw)
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status.details), status
    assert info.domain == "quorate", info
    return info


def refused(call):
    try:
        call()
    except grpc.RpcError as error:
        return error
    raise AssertionError("it was not refused")


def main(proto, endpoints):
    v1, v1_grpc = generated(proto)
    # An answer may be larger than what a client takes by default.
    options = [("grpc.max_receive_message_length", 64 << 20)]
    channels = [grpc.insecure_channel(endpoint, options) for endpoint in endpoints]
    stubs = [v1_grpc.SessionsStub(channel) for channel in channels]
    nonce = os.urandom(16)

    def write(stub, operation, cluster=b"", timeout=20):
        request = v1.SubmitRequest(tag=1, cluster_id=cluster, write=operation)
        return stub.Write(request, timeout=timeout, wait_for_ready=True)

    opened = write(stubs[0], v1.WriteOperation(open_client=v1.WriteOperation.OpenClient(nonce=nonce)))
    client, cluster = opened.outcome.client_opened, opened.cluster_id
    assert client > 0 and len(cluster) == 16, opened
    again = write(stubs[-1], v1.WriteOperation(open_client=v1.WriteOperation.OpenClient(nonce=nonce)))
    assert again.outcome.client_opened == client, again
    print("open")

    def request(sequence):
        return v1.Request(client=client, nonce=nonce, sequence=sequence, acknowledged_below=sequence)

    def blob(data):
        # What is too large is refused before its checksum is looked at, and this is slow.
        crc = crc32c(data) if len(data) < 16 << 20 else 0
        return v1.Blob(codec=v1.CODEC_NONE, raw_bytes=len(data), crc32c=crc, data=data)

    def full(text):
        # A plain value: the tag 0, then its bytes.
        return v1.Change(full=v1.Change.Full(head=blob(b"\0" + text)))

    def save(sequence, name, text):
        return v1.WriteOperation(save=v1.WriteOperation.Save(request=request(sequence), id=name, change=full(text)))

    def load(stub, name):
        operation = v1.LoadOperation(id=name, consistency=v1.CONSISTENCY_LINEARIZABLE)
        start, head, chunks, current, frames, last = None, None, [], None, 0, False
        for answer in stub.Load(v1.SubmitRequest(tag=1, load=operation), timeout=20, wait_for_ready=True):
            frames, frame = frames + 1, answer.load
            start, last = (frame.start if frame.HasField("start") else start), frame.last
            for piece in frame.pieces:
                begin = piece.WhichOneof("begin")
                if begin == "head":
                    current = head = [piece.head, b""]
                elif begin == "chunk":
                    current = [piece.chunk.blob, b""]
                    chunks.append(current)
                current[1] += piece.data
        assert last, "the last frame says so"
        for begun, data in [head, *chunks] if head else chunks:
            assert len(data) == begun.stored_bytes and crc32c(data) == begun.crc32c
        return start, head and head[1], frames

    first = save(1, "languages/python/a", "grüße".encode())
    saved = write(stubs[0], first, cluster).outcome
    assert saved.saved.version == 1, saved
    for stub in stubs:
        assert write(stub, first, cluster).outcome == saved, "a repeated request is answered as the first time"
        start, head, _ = load(stub, "languages/python/a")
        assert start.full.version == 1 and head == b"\0" + "grüße".encode(), start
    print("save and load")

    expected = v1.Expected(at=v1.Expected.At(version=7))
    conditional = v1.WriteOperation.SaveIfVersion(
        request=request(2),
        id="languages/python/a",
        expected=expected,
        change=full(b"other"),
        on_conflict=v1.ON_CONFLICT_REJECT,
    )
    conflict = write(stubs[1], v1.WriteOperation(save_if_version=conditional), cluster).outcome
    assert conflict.WhichOneof("verdict") == "conflict" and conflict.conflict.actual == 1, conflict
    print("conflict")

    write(stubs[2], save(3, "languages/python/b", b"second"), cluster)
    listing = v1.ListOperation(prefix="languages/python/", consistency=v1.CONSISTENCY_LINEARIZABLE, limit=1)
    page = stubs[1].List(v1.SubmitRequest(tag=1, list=listing), timeout=20, wait_for_ready=True).list
    assert [listed.id for listed in page.sessions] == ["languages/python/a"] and page.more, page
    listing.after = page.sessions[-1].id
    page = stubs[1].List(v1.SubmitRequest(tag=1, list=listing), timeout=20, wait_for_ready=True).list
    assert [listed.id for listed in page.sessions] == ["languages/python/b"] and not page.more, page
    print("list")

    text = os.urandom(3 << 20)
    write(stubs[0], save(4, "languages/python/large", text), cluster)
    start, head, frames = load(stubs[2], "languages/python/large")
    assert head == b"\0" + text and frames > 2, (start, frames)
    print("a large answer")

    for operation, code in [
        (v1.WriteOperation(save=v1.WriteOperation.Save(request=request(5), id="")), grpc.StatusCode.INVALID_ARGUMENT),
        (v1.WriteOperation(save=v1.WriteOperation.Save(request=request(5), id="ü\n" * 500_000)), grpc.StatusCode.INVALID_ARGUMENT),
        (save(5, "languages/python/too large", bytes(21 << 20)), grpc.StatusCode.OUT_OF_RANGE),
    ]:
        error = refused(lambda: write(stubs[0], operation, cluster))
        assert error.code() == code, error
        info = info_of(error)
        assert info.reason == "INVALID" and info.metadata["applied"] == "no", info
        assert len(error.details()) <= 512, error.details()
    assert write(stubs[0], save(5, "languages/python/a", b"third"), cluster).outcome.saved.version == 2
    print("refusal")

    database = ProtoReflectionDescriptorDatabase(channels[0])
    assert {"quorate.v1.Sessions", "quorate.v1.Operations"} <= set(database.get_services())
    print("reflection")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

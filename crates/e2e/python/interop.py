"""gRPC as grpcio has it: the service of the interop tests, and a client that tries everything on it.

    interop.py server [PORT]            prints `listening ADDRESS` and serves until it is killed
    interop.py client ADDRESS [CASE..]  prints a line a case; exits with 1 if one failed
    interop.py download ADDRESS COUNT SIZE   reads one long stream and prints its bytes

Messages are plain bytes: there is nothing to generate. The same service and the same cases exist in Rust, in
`tests/e2e/grpc/`; what a method does with which metadata is said there, in `service.rs`.
"""

import sys
import threading
import time
import traceback
from concurrent import futures

import grpc

SERVICE = "interop.Test"
PATIENCE = 30.0
OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", 64 * 1024),
    ("grpc.absolute_max_metadata_size", 128 * 1024),
    # A proxy named by the environment is not the one under test.
    ("grpc.enable_http_proxy", 0),
    # On a busy machine pings are slow, which it takes for a long way: its windows would grow beyond all that is sent here.
    ("grpc.http2.bdp_probe", 0),
]


# --- server ---------------------------------------------------------------------------------------------------------


class Service:
    def __init__(self):
        self.lock = threading.Lock()
        self.hanging = 0
        self.cancelled = 0
        self.written = 0

    def handlers(self):
        methods = {
            "Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "Download": grpc.unary_stream_rpc_method_handler(self.download),
            "Upload": grpc.stream_unary_rpc_method_handler(self.upload),
            "Chat": grpc.stream_stream_rpc_method_handler(self.chat),
            "Hang": grpc.unary_unary_rpc_method_handler(self.hang),
            "Hanging": grpc.unary_unary_rpc_method_handler(lambda _, __: str(self.hanging).encode()),
            "Cancelled": grpc.unary_unary_rpc_method_handler(lambda _, __: str(self.cancelled).encode()),
            "Written": grpc.unary_unary_rpc_method_handler(lambda _, __: str(self.written).encode()),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def unary(self, request, context):
        asked = begin(context)
        end(context, asked)
        return bytes(int(asked["x-size"])) if "x-size" in asked else request

    def download(self, request, context):
        asked = begin(context)
        with self.lock:
            self.written = 0
        message = bytes(int(asked.get("x-size", 0)))
        for _ in range(int(asked.get("x-count", 0))):
            yield message
            with self.lock:
                self.written += len(message)
        end(context, asked)

    def upload(self, requests, context):
        asked = begin(context)
        count = size = 0
        for message in requests:
            count += 1
            size += len(message)
        end(context, asked)
        return f"{count} {size}".encode()

    def chat(self, requests, context):
        asked = begin(context)
        for message in requests:
            yield message
        end(context, asked)

    def hang(self, request, context):
        gone = threading.Event()
        context.add_callback(gone.set)
        with self.lock:
            self.hanging += 1
        gone.wait()
        with self.lock:
            self.cancelled += 1
        return b""


def begin(context):
    """Echoes `x-echo` and `x-echo-bin` as initial metadata; gives the metadata as a dict (last value of a name)."""
    metadata = context.invocation_metadata()
    echo = [(key, value) for key, value in metadata if key in ("x-echo", "x-echo-bin")]
    context.send_initial_metadata(echo)
    return dict(metadata)


def end(context, asked):
    """Ends as `x-status`, `x-message-bin` and `x-trailer-bin` ask."""
    if "x-trailer-bin" in asked:
        context.set_trailing_metadata((("x-trailer-bin", asked["x-trailer-bin"]),))
    code = int(asked.get("x-status", 0))
    if code:
        known = {status.value[0]: status for status in grpc.StatusCode}
        context.abort(known[code], asked.get("x-message-bin", b"").decode())


def serve(port="0"):
    server = grpc.server(futures.ThreadPoolExecutor(64), options=OPTIONS)
    server.add_generic_rpc_handlers((Service().handlers(),))
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    print(f"listening 127.0.0.1:{port}", flush=True)
    server.wait_for_termination()


# --- client ---------------------------------------------------------------------------------------------------------


class Client:
    def __init__(self, address):
        self.channel = grpc.insecure_channel(address, options=OPTIONS)
        path = f"/{SERVICE}/"
        self.unary = self.channel.unary_unary(path + "Unary")
        self.download = self.channel.unary_stream(path + "Download")
        self.upload = self.channel.stream_unary(path + "Upload")
        self.chat = self.channel.stream_stream(path + "Chat")
        self.hang = self.channel.unary_unary(path + "Hang")
        self.nothing = self.channel.unary_unary(path + "Nothing")
        self._hanging = self.channel.unary_unary(path + "Hanging")
        self._cancelled = self.channel.unary_unary(path + "Cancelled")
        self._written = self.channel.unary_unary(path + "Written")

    def hanging(self):
        return int(self._hanging(b"", timeout=PATIENCE))

    def cancelled(self):
        return int(self._cancelled(b"", timeout=PATIENCE))

    def written(self):
        return int(self._written(b"", timeout=PATIENCE))


def same(what, got, wanted):
    if got != wanted:
        raise AssertionError(f"{what}: {got!r:.300}, not {wanted!r:.300}")


def wait_until(what, condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited in vain for {what}")
        time.sleep(0.005)


def failure(call):
    """The error that a call ends with."""
    try:
        call()
    except grpc.RpcError as error:
        return error
    raise AssertionError("the call succeeded")


def small_and_empty_messages(client):
    for message in (b"", b"x", bytes(range(256))):
        same("echo", client.unary(message, timeout=PATIENCE), message)


def big_messages(client):
    message = bytes(range(256)) * (5 * 4096)
    same("echo of 5 MiB", client.unary(message, timeout=PATIENCE), message)
    back = client.unary(b"", metadata=[("x-size", str(9 << 20))], timeout=PATIENCE)
    same("length", len(back), 9 << 20)


def server_stream(client):
    sizes = [len(m) for m in client.download(b"", metadata=[("x-count", "100"), ("x-size", "65536")], timeout=PATIENCE)]
    same("messages", sizes, [65536] * 100)
    same("no messages", list(client.download(b"", timeout=PATIENCE)), [])


def client_stream(client):
    same("upload", client.upload((bytes(65536) for _ in range(100)), timeout=PATIENCE), b"100 6553600")
    same("nothing", client.upload(iter(()), timeout=PATIENCE), b"0 0")


def ping_pong(client):
    """Each side waits for the other's message: whoever gathers messages hangs."""
    answers, turn = [], threading.Semaphore(1)

    def questions():
        for number in range(50):
            turn.acquire()
            yield b"%d" % number

    for answer in client.chat(questions(), timeout=PATIENCE):
        answers.append(answer)
        turn.release()
    same("answers", answers, [b"%d" % number for number in range(50)])


def metadata(client):
    sent = [("x-echo", "one"), ("x-echo", "two"), ("x-echo-bin", bytes(range(256))), ("x-trailer-bin", b"\0\xff")]
    call = client.download(b"", metadata=sent, timeout=PATIENCE)
    first = dict_of_lists(call.initial_metadata())
    same("x-echo", [part.strip() for value in first["x-echo"] for part in value.split(",")], ["one", "two"])
    same("x-echo-bin", first["x-echo-bin"], [bytes(range(256))])
    same("messages", list(call), [])
    same("x-trailer-bin", dict_of_lists(call.trailing_metadata())["x-trailer-bin"], [b"\0\xff"])


def dict_of_lists(pairs):
    result = {}
    for key, value in pairs:
        result.setdefault(key, []).append(value)
    return result


def statuses(client):
    for code in range(1, 17):
        text = f"fails: 100 % µ\n{code}"
        asked = [("x-status", str(code)), ("x-message-bin", text.encode())]
        error = failure(lambda: client.unary(b"x", metadata=asked, timeout=PATIENCE))
        same("code", error.code().value[0], code)
        same("message", error.details(), text)


def status_after_messages(client):
    asked = [("x-count", "3"), ("x-size", "10"), ("x-status", "9"), ("x-trailer-bin", b"t")]
    call = client.download(b"", metadata=asked, timeout=PATIENCE)
    sizes = []
    error = failure(lambda: [sizes.append(len(message)) for message in call])
    same("messages", sizes, [10, 10, 10])
    same("code", error.code(), grpc.StatusCode.FAILED_PRECONDITION)
    same("trailer", dict_of_lists(error.trailing_metadata())["x-trailer-bin"], [b"t"])


def unknown_method(client):
    error = failure(lambda: client.nothing(b"", timeout=PATIENCE))
    same("code", error.code(), grpc.StatusCode.UNIMPLEMENTED)


def cancellation(client):
    before, hanging = client.cancelled(), client.hanging()
    call = client.hang.future(b"", timeout=PATIENCE)
    wait_until("the server to have the call", lambda: client.hanging() > hanging)
    call.cancel()
    wait_until("the server to hear of the cancellation", lambda: client.cancelled() > before)


def deadline(client):
    before = client.cancelled()
    error = failure(lambda: client.hang(b"", timeout=0.3))
    # A tonic server that sees the deadline pass first says CANCELLED.
    same("code", error.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED), True)
    wait_until("the server to hear of the deadline", lambda: client.cancelled() > before)


def slow_reader(client):
    """A reader that stops stops its writer, and nobody else on the connection."""
    count, size = 2048, 65536
    call = client.download(b"", metadata=[("x-count", str(count)), ("x-size", str(size))], timeout=4 * PATIENCE)
    next(call)
    written = settle(client.written)
    if written > count * size // 2:
        raise AssertionError(f"{written} bytes are under way to a reader that has stopped")
    same("another stream", client.unary(b"x", timeout=PATIENCE), b"x")
    same("the rest", sum(len(message) for message in call), (count - 1) * size)


def slow_server(client):
    """A server that does not read its stream stops whoever writes to it, and nobody else on the connection."""
    message, taken = bytes(65536), [0]

    def questions():
        for _ in range(1024):
            yield message
            taken[0] += 1

    # Chat reads on only as its answers are read, which nobody does.
    call = client.chat(questions(), timeout=4 * PATIENCE)
    sent = settle(lambda: taken[0])
    if sent == 1024:
        raise AssertionError(f"{sent} messages went to a server that does not read")
    same("another stream", client.unary(b"x", timeout=PATIENCE), b"x")
    call.cancel()
    same("another stream", client.unary(b"x", timeout=PATIENCE), b"x")


def settle(number):
    """The number once it has not changed for ten looks."""
    last, same_for = number(), 0
    deadline = time.monotonic() + PATIENCE
    while same_for < 10 and time.monotonic() < deadline:
        time.sleep(0.02)
        now = number()
        same_for = same_for + 1 if now == last else 0
        last = now
    return last


def many_at_once(client):
    calls = [client.unary.future(b"%d" % n, metadata=[("x-echo", str(n))], timeout=PATIENCE) for n in range(500)]
    same("answers", [call.result() for call in calls], [b"%d" % n for n in range(500)])


CASES = [
    small_and_empty_messages,
    big_messages,
    server_stream,
    client_stream,
    ping_pong,
    metadata,
    statuses,
    status_after_messages,
    unknown_method,
    cancellation,
    deadline,
    slow_reader,
    slow_server,
    many_at_once,
]


def run_client(address, only):
    client, failed = Client(address), 0
    for case in CASES:
        if only and case.__name__ not in only:
            continue
        try:
            case(client)
            print(f"ok {case.__name__}", flush=True)
        except Exception:  # Whatever it was, it is this case's failure; the others still run.
            failed += 1
            print(f"FAILED {case.__name__}\n{traceback.format_exc()}", flush=True)
    return 1 if failed else 0


def run_download(address, count, size):
    call = Client(address).download(b"", metadata=[("x-count", count), ("x-size", size)])
    print(sum(len(message) for message in call), flush=True)
    return 0


if __name__ == "__main__":
    command, arguments = sys.argv[1], sys.argv[2:]
    if command == "server":
        serve(*arguments)
    elif command == "client":
        sys.exit(run_client(arguments[0], arguments[1:]))
    elif command == "download":
        sys.exit(run_download(*arguments))
    else:
        sys.exit(f"not a command: {command}")

"""A real HTTP server that misbehaves as a test wants it to, one way after the other.

It runs in threads of its own, so that both a blocking and an asynchronous client can meet it.
"""

import json
import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection

SOCKET_SECONDS_MAX = 20.0


@dataclass(frozen=True)
class Got:
    """A request that came, and when, by the monotonic clock; the names of headers in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    at: float


# Does with the connection what it likes; returns whether it may be used again.
Step = Callable[[socket.socket, Got], bool]


@dataclass
class BadServer:
    """Each request is met by the next of `steps`; `connections` counts how many came."""

    url: str = ""
    steps: list[Step] = field(default_factory=list[Step])
    got: list[Got] = field(default_factory=list[Got])
    connections: int = 0
    ended: threading.Event = field(default_factory=threading.Event)

    def serve(self, listening: socket.socket) -> None:
        with suppress(OSError):  # it is closed when the test is over
            while True:
                connection, _ = listening.accept()
                self.connections += 1
                threading.Thread(target=self._keep, args=(connection,), daemon=True).start()

    def _keep(self, connection: socket.socket) -> None:
        connection.settimeout(SOCKET_SECONDS_MAX)
        with connection, suppress(OSError):
            reader = connection.makefile("rb")
            with reader:
                while (got := _read(reader.readline, reader.read)) is not None:
                    self.got.append(got)
                    if not self.steps.pop(0)(connection, got):
                        return


def _read(line: Callable[[], bytes], read: Callable[[int], bytes]) -> Got | None:
    first = line().decode()
    if not first:
        return None
    method, target, _ = first.split()
    headers: dict[str, str] = {}
    while text := line().decode("latin-1").strip():
        name, _, value = text.partition(":")
        headers[name.lower()] = value.strip()
    body = read(int(headers.get("content-length", "0")))
    return Got(method, target, headers, body, time.monotonic())


@contextmanager
def misbehaving(*steps: Step) -> Generator[BadServer]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = BadServer(f"http://127.0.0.1:{listening.getsockname()[1]}", list(steps))
        thread = threading.Thread(target=server.serve, args=(listening,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.ended.set()
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(SOCKET_SECONDS_MAX)


def answering(status: int, body: object, headers: dict[str, str] | None = None) -> Step:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()

    def step(connection: socket.socket, _: Got) -> bool:
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(content)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + content)
        return True

    return step


def refusing(status: int, code: str, **headers: str) -> Step:
    told = {"status": status, "code": code, "title": code, "detail": "as told", "request_id": "r"}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return answering(status, told, named)


def raw(content: bytes) -> Step:
    """Sends just this, and hangs up."""

    def step(connection: socket.socket, _: Got) -> bool:
        connection.sendall(content)
        return False

    return step


def hanging_up(_connection: socket.socket, _got: Got) -> bool:
    """The request came, and no word is said."""
    return False


def hanging(connection: socket.socket, _: Got) -> bool:
    """Silence, until the client hangs up."""
    connection.recv(1)
    return False


def dripping(start: bytes) -> Step:
    """A byte every now and then: no single wait is long, and there is no end."""

    def step(connection: socket.socket, _: Got) -> bool:
        connection.sendall(start)
        while True:
            connection.sendall(b"x")
            time.sleep(0.05)

    return step


def flooding(connection: socket.socket, _: Got) -> bool:
    """An answer that does not end."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"10000\r\n" + b" " * 65_536 + b"\r\n")


def passing_on(port: int, *, answered: bool) -> Step:
    """Hands the request to a real server; its answer is passed back, or lost."""

    def step(connection: socket.socket, got: Got) -> bool:
        real = HTTPConnection("127.0.0.1", port, timeout=SOCKET_SECONDS_MAX)
        kept = {n: v for n, v in got.headers.items() if n not in {"host", "content-length"}}
        real.request(got.method, got.target, got.body, kept)
        response = real.getresponse()
        content, headers = response.read(), dict(response.getheaders())
        real.close()
        if not answered:
            return False
        headers.pop("content-length", None)
        return answering(response.status, content, headers)(connection, got)

    return step

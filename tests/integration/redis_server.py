"""A Redis of one test's own, to be killed, frozen and filled; and one that talks nonsense."""

import asyncio
import signal
import subprocess
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from tests.processes import free_port

from picopay.embedded import binaries


class RedisServer:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        options = f"--port {self.port} --bind 127.0.0.1 --save --maxmemory-policy noeviction"
        command = [binaries.find().valkey, *options.split()]
        self._process = subprocess.Popen(
            command, cwd=self._directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 10
        while not self._answers():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """It goes on accepting connections, as the kernel does, and never answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        try:
            return command(self.url, "PING") is True
        except RedisConnectionError:
            return False


def command(url: str, *words: object) -> Any:  # noqa: ANN401 - each command answers its own
    """What Redis answers, past the code under test."""
    with Redis.from_url(url) as client:  # pyright: ignore[reportUnknownMemberType] - half typed
        return client.execute_command(*words)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - half typed


@asynccontextmanager
async def answering(reply: bytes) -> AsyncGenerator[str]:
    """The URL of a server that greets like Redis and answers everything else with `reply`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                greeted = b"HELLO" in data or b"CLIENT" in data
                writer.write(b"+OK\r\n" if greeted else reply)
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    finally:
        server.close()

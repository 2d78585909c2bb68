"""Servers of the test's own process, configured as `picopay serve` configures them."""

import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp
from tests.embedded.world import wait_until

from picopay.infra.protocol import HttpProtocol

BACKLOG = 200


@contextmanager
def serving(app: ASGIApp) -> Generator[int]:
    """The port that it listens on."""
    config = uvicorn.Config(
        app,
        http=HttpProtocol,
        loop="picopay.infra.accepting:Loop",
        ws="none",
        lifespan="off",
        log_config=None,
        proxy_headers=False,
        access_log=False,
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        wait_until(lambda: server.started)
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()

"""A server is killed with accepted webhooks in hand: the next start processes each of them, once.

It starts a server of its own, on a data directory of its own or that of `--data-dir`.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from story import PATIENCE_SECONDS, call, given, passed, then, until, when

WEBHOOKS = 10
DELAY_SECONDS = 3


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def serving(data_dir: Path, port: int) -> Generator[subprocess.Popen[bytes]]:
    command = [Path(sys.executable).with_name("picopay"), "serve", "--port", str(port)]
    kept = {name: value for name, value in os.environ.items() if name != "PICOPAY_URL"}
    server = subprocess.Popen(
        [*command, "--data-dir", data_dir],
        env=kept | {"TRANSACTION_PROCESSING_DELAY_SECONDS": str(DELAY_SECONDS)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: is_up(port), seconds=2 * PATIENCE_SECONDS)
        yield server
    finally:
        server.terminate()
        server.wait()


def is_up(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def statuses(url: str, names: list[str]) -> list[str]:
    return [call("GET", f"/v1/transactions/{name}", url=url).body["status"] for name in names]


def run(data_dir: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    names = [f"txn_{uuid4().hex}" for _ in range(WEBHOOKS)]
    with serving(data_dir, port) as server:
        given(f"{WEBHOOKS} webhooks that were answered 202")
        for name in names:
            accounts = {"source_account": f"s_{name}", "destination_account": f"d_{name}"}
            body = {"transaction_id": name, "amount": 1, "currency": "USD", **accounts}
            answer = call("POST", "/v1/webhooks/transactions", body, url=url)
            then(answer.status == 202, name)

        when("the server is killed before it has processed them all")
        server.send_signal(signal.SIGKILL)
        then(server.wait() == -signal.SIGKILL, "it is gone")

    with serving(data_dir, port):
        when("it is started again")
        done = until(lambda: set(statuses(url, names)) == {"PROCESSED"})
        then(done, f"all {WEBHOOKS} are PROCESSED")
        key = (data_dir / "api_key").read_text().strip()
        for name in names:
            path = f"/v1/accounts/external:d_{name}/entries"
            entries = call("GET", path, url=url, X_API_Key=key).body["data"]
            then(len(entries) == 1, f"{name} is one entry on the ledger")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=None)
    chosen = parser.parse_args().data_dir
    if chosen is not None:
        run(chosen)
    else:
        with tempfile.TemporaryDirectory(prefix="picopay-acceptance-") as folder:
            run(Path(folder) / "data")
    passed()

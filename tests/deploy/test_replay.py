"""The Dockerfile's own steps, replayed in a folder: what they leave migrates, serves and works."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex, token_urlsafe
from typing import Any
from urllib.request import Request, urlopen

import asyncpg
import pytest
from tests.deploy.files import ROOT
from tests.embedded.world import wait_until
from tests.processes import STOP_SECONDS_MAX, free_port, get, spawn

from picopay.embedded.servers import Servers

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(900)]
API_KEY = token_urlsafe(32)
# Four processes that start at once, with imports of their own.
START_SECONDS_MAX = 240


@dataclass(frozen=True)
class Image:
    root: Path
    environment: dict[str, str]
    commands: dict[str, list[str]]

    def entry(self, *arguments: str) -> list[str | Path]:
        """The entry point with these arguments, found where the image's PATH begins."""
        (program,) = self.commands["ENTRYPOINT"]
        return [self.root / "opt" / "picopay" / "bin" / program, *arguments]

    def files(self) -> set[tuple[str, int, int]]:
        return {
            (str(path), path.lstat().st_size, path.lstat().st_mtime_ns)
            for path in self.root.rglob("*")
            if not path.is_dir()
        }


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    root = tmp_path_factory.mktemp("image")
    command = [sys.executable, ROOT / "scripts" / "replay_image.py", root]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=800, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    told = json.loads(ran.stdout[ran.stdout.index("\n{") :])
    return Image(root, told["environment"], told["commands"])


@pytest.fixture
def settings(servers: Servers) -> dict[str, str]:
    """As in production, on an empty database."""
    name = f"image_{token_hex(4)}"
    asyncio.run(_make_database(servers.database_url, name))
    return {
        "PICOPAY_ENV": "production",
        "DATABASE_URL": f"{servers.database_url.rpartition('/')[0]}/{name}",
        "REDIS_URL": servers.redis_url,
        "APP_API_KEY": API_KEY,
        "ADMIN_SECRET": token_urlsafe(32),
        "PAYMENT_WEBHOOK_SECRET": token_urlsafe(32),
        "TRANSACTION_WEBHOOK_UNSIGNED": "true",
        "TRANSACTION_PROCESSING_DELAY_SECONDS": "0",
        "PYTHONPATH": "",
    }


async def _make_database(url: str, name: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()


@contextmanager
def running(
    command: Sequence[str | Path], environment: Mapping[str, str], log: Path
) -> Generator[None]:
    process = spawn(command, environment, log)
    try:
        yield
        process.terminate()
        assert process.wait(STOP_SECONDS_MAX) == 0, log.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(STOP_SECONDS_MAX)


def ran(
    command: Sequence[str | Path], environment: Mapping[str, str], cwd: Path
) -> tuple[int, str]:
    done = subprocess.run(
        command,
        env=dict(environment),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def post(port: int, path: str, body: Mapping[str, Any], **headers: str) -> dict[str, Any]:
    told = {"X-API-Key": API_KEY, "Content-Type": "application/json"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    request = Request(f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(), told)
    with urlopen(request, timeout=30) as answer:  # noqa: S310 - our own
        answered: dict[str, Any] = json.load(answer)
        return answered


def healthy(image: Image, port: int, path: str, cwd: Path) -> bool:
    """By the image's own check, asked of this test's port."""
    command = [
        part.replace("8000/livez", f"{port}{path}") for part in image.commands["HEALTHCHECK"]
    ]
    return ran(command, image.environment, cwd)[0] == 0


def test_what_the_steps_leave_migrates_serves_works_and_writes_nothing(
    image: Image, settings: dict[str, str], tmp_path: Path
) -> None:
    environment = image.environment | settings
    before = image.files()
    status, told = ran(image.entry("migrate", "--check"), environment, tmp_path)
    assert (status, "not current" in told) == (1, True), told
    status, told = ran(image.entry("migrate"), environment, tmp_path)
    assert status == 0, told
    api, metrics = free_port(), free_port()
    serve = image.entry("serve", "--port", str(api), "--workers", "2", "--no-worker")
    work = image.entry("worker", "--metrics-port", str(metrics))
    with ExitStack() as both:
        both.enter_context(running(serve, environment, tmp_path / "serve.log"))
        both.enter_context(running(work, environment, tmp_path / "worker.log"))
        wait_until(lambda: healthy(image, api, "/livez", tmp_path), START_SECONDS_MAX)
        wait_until(lambda: healthy(image, metrics, "/metrics", tmp_path), START_SECONDS_MAX)
        assert not healthy(image, free_port(), "/livez", tmp_path)
        assert get(api, "/readyz")[0] == 200
        _charge_twice(api)
        _is_processed(api)
    status, told = ran(image.entry("ledger", "check"), environment, tmp_path)
    assert status == 0, told
    assert image.files() == before


def _charge_twice(port: int) -> None:
    assert post(port, "/v1/users", {"id": 1})["id"] == 1
    money = {"amount": 1000, "currency": "USD"}
    key = "6f1c9c1e-3a52-4c53-9c1f-2b7f6a0d9e11"
    post(port, "/v1/users/1/deposits", money, Idempotency_Key=key.replace("6", "7"))
    charge = {"user_id": 1, "amount": 100, "currency": "USD"}
    answers = [post(port, "/charge", charge, Idempotency_Key=key) for _ in range(2)]
    assert answers[0] == answers[1]
    assert answers[0]["new_balance"] == 900


def _is_processed(port: int) -> None:
    """By the worker: this server has none."""
    transaction = {"transaction_id": "txn_1", "amount": 1500, "currency": "INR"}
    accounts = {"source_account": "acc_user_1", "destination_account": "acc_merchant_2"}
    post(port, "/v1/webhooks/transactions", transaction | accounts)
    wait_until(lambda: '"PROCESSED"' in get(port, "/v1/transactions/txn_1")[1])

"""What a keeper tells its users: `servers.json`, true as long as its writer holds it locked."""

import json
import os
from pathlib import Path
from typing import NamedTuple

from picopay.embedded.locks import Lock


class Status(NamedTuple):
    keeper: int
    starter: str
    ephemeral: bool = False
    created: bool = False
    database_url: str = ""
    redis_url: str = ""
    error: str = ""


def publish(path: Path, status: Status) -> Lock:
    """Write it atomically; the lock returned vouches for it until the keeper dies."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    lock = Lock(new)
    locked = lock.try_exclusive()
    assert locked, "nobody else knows this file yet"
    os.write(lock.fd, json.dumps(status._asdict()).encode())
    new.replace(path)
    return lock


def read(path: Path) -> Status | None:
    """Read what a living keeper says; a file that a dead one left behind says nothing."""
    try:
        file = Lock(path, opened=os.open(path, os.O_RDONLY))
    except FileNotFoundError:
        return None
    if file.try_shared():
        return None
    return Status(**json.loads(os.pread(file.fd, os.fstat(file.fd).st_size, 0)))

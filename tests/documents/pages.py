"""Runs what a page tells its reader to run, and compares what comes with what the page shows.

A `bash` block is run as it stands. The block after it is what the reader should see: `json` is the
whole answer, `text` holds lines of it. A `python` block is added to the file that was named last.
Ids and times differ from run to run: an id that a page shows stands for the one that came, there
and in every command after it.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]
COMMAND_SECONDS_MAX: Final = 170
PATIENCE_SECONDS: Final = 20.0  # until a GET shows what happens in the background

_FENCE: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_PYTHON_FILE: Final = re.compile(r"`(\w+\.py)`")
_STATUS: Final = re.compile(r"Answered (\d{3})")
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_CURSOR: Final = re.compile(r"[A-Za-z0-9_-]{16,}")


class Block(NamedTuple):
    """A fenced block, and the prose before and after it."""

    language: str
    text: str
    before: str
    after: str

    @property
    def status(self) -> int | None:
        """What the page says the answer's status is."""
        found = _STATUS.search(self.after)
        return int(found[1]) if found else None


def blocks_of(page: Path) -> list[Block]:
    return blocks_in(page.read_text())


def fenced(language: str, text: str) -> list[str]:
    """What stands in the blocks of one language."""
    return [block.text for block in blocks_in(text) if block.language == language]


def blocks_in(text: str) -> list[Block]:
    fences = list(_FENCE.finditer(text))
    ends = [0, *(fence.end() for fence in fences)]
    starts = [*(fence.start() for fence in fences), len(text)]
    prose = [text[end:start] for end, start in zip(ends, starts, strict=True)]
    return [Block(fence[1], fence[2], prose[n], prose[n + 1]) for n, fence in enumerate(fences)]


class Answer(NamedTuple):
    """What a command printed, and the statuses of its requests."""

    text: str
    statuses: list[int]


class Desk:
    """Where a reader sits: a folder with `.picopay`, `.venv` and the scripts of the repository.

    There `localhost:8000` is the server, whatever its port.
    """

    def __init__(self, folder: Path, data_dir: Path, port: int) -> None:
        self.folder = folder
        self.url = f"http://127.0.0.1:{port}"
        folder.mkdir()
        for name in (".venv", "scripts", "src"):
            (folder / name).symlink_to(ROOT / name)
        (folder / ".picopay").symlink_to(data_dir)
        (folder / ".curlrc").write_text(
            "silent\nshow-error\nmax-time = 30\n"
            'write-out = "%{stderr}%{http_code}\\n"\n'
            f'connect-to = "localhost:8000:127.0.0.1:{port}"\n'
        )

    def run(self, command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        kept = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
        ours = {"HOME": str(self.folder), "CURL_HOME": str(self.folder), "COLUMNS": "100"}
        url = {"PICOPAY_URL": self.url}
        reader = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=self.folder,
            env=kept | ours | url | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            out, err = reader.communicate(timeout=COMMAND_SECONDS_MAX)
        finally:
            with contextlib.suppress(ProcessLookupError):  # whatever it has left running
                os.killpg(reader.pid, signal.SIGKILL)
        return subprocess.CompletedProcess(command, reader.returncode, out, err)

    def answer(self, command: str) -> Answer:
        """Of a command that must succeed."""
        ran = self.run(command)
        assert ran.returncode == 0, f"{command}\n{ran.stdout}{ran.stderr}"
        statuses = [int(line) for line in ran.stderr.split() if re.fullmatch(r"\d{3}", line)]
        return Answer(ran.stdout, statuses)


class Reader:
    """Follows one page from its first block to its last; `ids` are what shown ones stand for."""

    def __init__(self, desk: Desk, page: Path, ids: dict[str, str] | None = None) -> None:
        self.desk = desk
        self.page = page
        self.ids = {} if ids is None else ids

    def follow(self, blocks: list[Block]) -> None:
        for block, shown in zip(blocks, [*blocks[1:], None], strict=True):
            if block.language == "python":
                self._save(block, blocks)
            elif block.language == "bash":
                self._try(block, shown)

    def _save(self, block: Block, blocks: list[Block]) -> None:
        earlier = "".join(b.before for b in blocks[: blocks.index(block) + 1])
        name = _PYTHON_FILE.findall(earlier)[-1]
        with (self.desk.folder / name).open("a") as file:
            file.write(block.text)

    def _try(self, block: Block, shown: Block | None) -> None:
        repeatable = block.text.startswith(("curl http", 'curl "http'))
        give_up_at = time.monotonic() + (PATIENCE_SECONDS if repeatable else 0)
        while True:
            answer = self.desk.answer(substituted(block.text, self.ids))
            try:
                self._compare(block, shown, answer)
            except AssertionError as difference:
                if time.monotonic() > give_up_at:
                    told = f"{self.page.name}: {block.text}{answer.text}\n{difference}"
                    raise AssertionError(told) from None
                time.sleep(0.2)
            else:
                return

    def _compare(self, block: Block, shown: Block | None, answer: Answer) -> None:
        if block.status is None:
            assert all(status < 400 for status in answer.statuses), answer.statuses
        else:
            assert set(answer.statuses) == {block.status}, answer.statuses
        if shown is not None and shown.language == "json":
            compare(parsed(shown.text), parsed(answer.text), self.ids)
        if shown is not None and shown.language == "text":
            for line in substituted(shown.text, self.ids).strip().splitlines():
                assert _holds(answer.text, line), f"not shown: {line}"


def substituted(text: str, ids: dict[str, str]) -> str:
    for shown, came in ids.items():
        text = text.replace(shown, came)
    return text


def parsed(text: str) -> Any:  # noqa: ANN401 - JSON
    """Numbers as they are written: 900.0 is not 900.00."""
    return json.loads(text, parse_float=lambda t: ("number", t), parse_int=lambda t: ("number", t))


def compare(shown: Any, came: Any, ids: dict[str, str]) -> None:  # noqa: ANN401 - JSON
    """Alike to the last digit and in the same order, but for ids, times and cursors."""
    kind = _kind(shown)
    assert kind == _kind(came), f"{shown} is not {came}"
    if kind == "dict":
        assert list(shown) == list(came), f"{list(shown)} are not {list(came)}"
        for name in shown:
            compare(shown[name], came[name], ids)
    elif kind == "list":
        assert len(shown) == len(came), f"{len(shown)} shown, {len(came)} came"
        for one, other in zip(shown, came, strict=True):
            compare(one, other, ids)
    elif kind == "str":
        _compare_text(shown, came, ids)
    else:
        assert shown == came, f"{shown} is not {came}"


def _kind(value: object) -> str:
    return type(value).__name__


def _compare_text(shown: str, came: str, ids: dict[str, str]) -> None:
    if _TIME.fullmatch(shown):
        assert _TIME.fullmatch(came), f"{came} is no time"
        return
    for kind in (_UUID, _CURSOR):
        if kind.fullmatch(shown) and kind.fullmatch(came) and _made_up(shown):
            assert ids.setdefault(shown, came) == came, f"{shown} was {ids[shown]}, now {came}"
            return
    assert substituted(shown, ids) == came, f"{shown} is not {came}"


def _made_up(text: str) -> bool:
    """A word is a word: only what has digits can be an id."""
    return any(letter.isdigit() for letter in text)


def _holds(text: str, line: str) -> bool:
    pattern = r".*".join(r"\s+".join(map(re.escape, part.split())) for part in line.split("…"))
    return re.search(pattern, text) is not None


def curls_of(page: Path) -> Iterator[tuple[Block, str, str]]:
    """(block, method, path) of each request that a page makes with curl."""
    for block in blocks_of(page):
        for call in re.findall(r"curl (.*?)(?=\ncurl |\Z)", block.text, re.DOTALL):
            if block.language == "bash" and (
                path := re.search(r"localhost:8000(/[^\s?'\"]*)", call)
            ):
                method = re.search(r"-X ([A-Z]+)", call)
                yield block, method[1] if method else "GET", path[1]

"""Logs: one JSON line an event, or coloured text on a terminal."""

import asyncio
import logging
import sys
from collections.abc import Sequence
from contextlib import suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Final, TextIO, cast

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from picopay.infra import tracing

# The id of the request at work, for every line that is written on its behalf.
request_id_var: ContextVar[str | None] = ContextVar("request_id", default=None)

log: Final[FilteringBoundLogger] = structlog.get_logger()

_Row = dict[str, object]


def _stamp(_logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Level, time in UTC, and the request's id: one step, since this runs on the hot path."""
    event["level"] = method
    event["timestamp"] = _now()
    if "request_id" not in event and (request_id := request_id_var.get()) is not None:
        event["request_id"] = request_id
    if (trace_id := tracing.trace_id()) is not None:
        event["trace_id"] = trace_id
    return event


def _escape(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """What a stranger has sent must not move the cursor of a terminal, nor begin a line."""
    for name, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[name] = ascii(value)
    return event


def _now() -> str:
    return datetime.now(UTC).isoformat()  # noqa: TID251 - a log line's own time


def log_all(event: str, rows: Sequence[_Row]) -> None:
    """One info line for each row: for what happens thousands of times a second.

    All rows have the same names. Lines are gathered until the event loop comes round again, and
    written together.
    """
    if not log.is_enabled_for(logging.INFO):
        return
    if not _gathered.json:
        for row in rows:
            log.info(event, **{name: str(value) for name, value in row.items()})
        return
    common: _Row = {"event": event, "level": "info"}
    if (request_id := request_id_var.get()) is not None:
        common["request_id"] = request_id
    if (trace_id := tracing.trace_id()) is not None:
        common["trace_id"] = trace_id
    _gathered.add(rows, common)


class _Outlet:
    """A standard stream that may end before we do: a line that nobody can read stops nothing."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with suppress(OSError, ValueError):  # a reader that left, a full disk; or it is closed
            self._stream.write(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()


class _Gathered:
    """Lines on their way to standard output."""

    def __init__(self) -> None:
        self.json = True
        self._waiting: list[tuple[Sequence[_Row], _Row]] = []

    def add(self, rows: Sequence[_Row], common: _Row) -> None:
        """Each row with what is common to all of them."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._write)
        self._waiting.append((rows, common))

    def _write(self) -> None:
        waiting, self._waiting = self._waiting, []
        now = _now()
        lines: list[bytes] = []
        for rows, common in waiting:
            lines += _lines(rows, common | {"timestamp": now})
        out = _Outlet(sys.stdout)
        out.write(b"".join(lines).decode())
        out.flush()


def _lines(rows: Sequence[_Row], common: _Row) -> list[bytes]:
    """What is common is written once, and put behind each; unless a row has a name of it too."""
    if not rows or not rows[0] or not common.keys().isdisjoint(rows[0]):
        return [_json_bytes(row | common) + b"\n" for row in rows]
    end = b"," + _json_bytes(common)[1:] + b"\n"
    return [_json_bytes(row)[:-1] + end for row in rows]


_gathered = _Gathered()


def _json(value: object, **_: object) -> str:
    return _json_bytes(value).decode()


def _json_bytes(value: object) -> bytes:
    return orjson.dumps(value, default=str)


def configure(level: str, style: str | None) -> None:
    """Send our events, and whatever libraries log, to standard output in one form."""
    console = style == "console" or (style is None and sys.stdout.isatty())
    render: list[Processor] = (
        [_escape, _console(colors=True)]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(_json)]
    )
    _gathered.json = not console
    number = logging.getLevelNamesMapping()[level]
    structlog.configure(
        processors=[_stamp, *render],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", _Outlet(sys.stdout))),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_LibraryHandler()], level=max(number, logging.INFO), force=True)
    for chatty in ("alembic", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def configure_for_commands() -> None:
    """A command prints its answer and nothing else; what must be said goes to standard error."""
    structlog.configure(
        processors=[_stamp, _console(colors=sys.stderr.isatty())],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", _Outlet(sys.stderr))),
    )


def _console(*, colors: bool) -> structlog.dev.ConsoleRenderer:
    """Its default shows every frame's variables: API keys too, and that for seconds."""
    plain = structlog.dev.plain_traceback
    return structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=plain)


class _LibraryHandler(logging.Handler):
    """Passes a library's line on; a logger's name says nothing of what happened in it."""

    def emit(self, record: logging.LogRecord) -> None:
        level = min(record.levelno // 10 * 10, logging.ERROR)
        told = {"logger": record.name, "message": record.getMessage()}
        log.log(level, "library", **told, exc_info=record.exc_info)

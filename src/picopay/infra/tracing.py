"""Traces: a span for each request, batch and event, once it is told where to send them.

While it is off there is no tracer, nothing of OpenTelemetry's SDK is imported, and whoever asks is
told None. Spans hold names, sizes and statuses: no amounts, keys, ids of users, bodies or messages.
"""

from collections.abc import Generator, Iterable, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from importlib.util import find_spec
from threading import Thread
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from picopay.infra.settings import Settings
from picopay.kernel.errors import Refused

STOP_SECONDS_MAX: Final = 3.0
TRACEPARENT: Final = "traceparent"

_W3C: Final = TraceContextTextMapPropagator()
_NOTHING: Final = nullcontext()


class _Tracing:
    """What this process traces with."""

    tracer: Tracer | None = None
    provider: Any = None


_now: Final = _Tracing()


def is_installed() -> bool:
    return find_spec("opentelemetry.sdk") is not None


def start(settings: Settings) -> None:
    """From now on, if the settings say so. Before the application is made, in each process."""
    if settings.otel_exporter_otlp_endpoint is None or _now.tracer is not None:
        return
    otlp = import_module("picopay.infra.otlp")
    _now.provider = otlp.provider(settings.otel_exporter_otlp_endpoint)
    _now.tracer = _now.provider.get_tracer("picopay")


def stop() -> None:
    """Send what is left, if that can be done soon."""
    provider, _now.provider, _now.tracer = _now.provider, None, None
    if provider is not None:
        sending = Thread(target=provider.shutdown, daemon=True)
        sending.start()
        sending.join(STOP_SECONDS_MAX)


def is_on() -> bool:
    return _now.tracer is not None


def current() -> Span | None:
    """The span at work, for who does its work later."""
    return None if _now.tracer is None else trace.get_current_span()


def trace_id() -> str | None:
    """Of the span at work, for log lines."""
    if _now.tracer is None:
        return None
    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else None


def origin(request_id: str | None) -> str | None:
    """What an event keeps of the request that made it: its id, and after a space its trace."""
    if _now.tracer is None:
        return request_id
    carrier: dict[str, str] = {}
    _W3C.inject(carrier)
    if TRACEPARENT not in carrier:
        return request_id
    return f"{request_id or ''} {carrier[TRACEPARENT]}"


def split(kept: str | None) -> tuple[str | None, str | None]:
    """Request id and trace of what `origin` made."""
    request_id, _, traceparent = (kept or "").partition(" ")
    return request_id or None, traceparent or None


def _context_of(traceparent: str) -> Context:
    """Whoever sends it may also send a `tracestate`; that is theirs, and not passed on."""
    return _W3C.extract({TRACEPARENT: traceparent}, Context())


def request(traceparent: str | None) -> AbstractContextManager[Span]:
    """A request's span, to be named by who learns its route."""
    assert _now.tracer is not None
    context = Context() if traceparent is None else _context_of(traceparent)
    return _now.tracer.start_as_current_span(
        "HTTP", context, SpanKind.SERVER, record_exception=False, set_status_on_exception=False
    )


def batch(what: str, spans: Iterable[Span | None]) -> AbstractContextManager[None]:
    """What is done for many callers together: below the first of them, linked with the others."""
    return _NOTHING if _now.tracer is None else _batch(_now.tracer, what, spans)


@contextmanager
def _batch(tracer: Tracer, what: str, spans: Iterable[Span | None]) -> Generator[None]:
    callers = list(spans)
    sampled = list(dict.fromkeys(span for span in callers if span and span.is_recording()))
    if not sampled:
        yield
        return
    first, *others = sampled
    with tracer.start_as_current_span(
        f"{what} batch",
        trace.set_span_in_context(first, Context()),
        attributes={"picopay.batch.size": len(callers)},
        links=[Link(span.get_span_context()) for span in others],
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        for other in others:
            other.add_link(span.get_span_context())
        try:
            yield
        except BaseException as error:
            _fail(span, error)
            raise


def handling(
    consumer: str, events: Sequence[tuple[str, str | None]]
) -> AbstractContextManager[None]:
    """What a consumer does with (type, trace) events: a span for each, in the trace of each."""
    return _NOTHING if _now.tracer is None else _handling(_now.tracer, consumer, events)


@contextmanager
def _handling(
    tracer: Tracer, consumer: str, events: Sequence[tuple[str, str | None]]
) -> Generator[None]:
    spans = [
        tracer.start_span(
            f"{consumer} process",
            _context_of(traceparent),
            SpanKind.CONSUMER,
            {"picopay.event.type": kind, "picopay.batch.size": len(events)},
        )
        for kind, traceparent in events
        if traceparent is not None
    ]
    # Of several none is at work: what they make together belongs to no one request.
    alone = len(events) == len(spans) == 1
    try:
        with _at_work(spans[0]) if alone else _NOTHING:
            yield
    except BaseException as error:
        for span in spans:
            _fail(span, error)
        raise
    finally:
        for span in spans:
            span.end()


def _at_work(span: Span) -> AbstractContextManager[Span]:
    return trace.use_span(span, record_exception=False, set_status_on_exception=False)


def _fail(span: Span, error: BaseException) -> None:
    """Its kind alone: messages hold what was asked."""
    kind = error.code if isinstance(error, Refused) else type(error).__name__
    span.set_attribute("error.type", kind)
    span.set_status(StatusCode.ERROR)

"""Write the pages of docs/reference from the code that they describe; logs.md is kept by hand.

A tidy test fails when they are out of date; `make docs` runs this.
"""

import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import typer
from prometheus_client import REGISTRY
from pydantic.fields import FieldInfo

from picopay.app import create_app
from picopay.cli.main import app as commands
from picopay.fake_payments import model as fake_payments
from picopay.infra.metrics import LATENCY_BUCKETS_SECONDS as _REGISTERED
from picopay.infra.problems import PROBLEMS
from picopay.infra.settings import Settings
from picopay.kernel.errors import Refused
from picopay.orders import model as orders
from picopay.transfers import model as transfers

FOLDER = Path(__file__).parents[1] / "docs" / "reference"


def settings() -> str:
    rows = [_setting(name, field) for name, field in Settings.model_fields.items()]
    return _page(
        "Settings",
        "Read from the environment, from `.env`, and from files in `/run/secrets`, named as the "
        "variable in any case: `/run/secrets/admin_secret`. The environment goes before `.env`, "
        "and both before files. What is empty or blank counts as unset.",
        "| variable | default | meaning |\n| --- | --- | --- |",
        rows,
    )


def _setting(name: str, field: FieldInfo) -> str:
    default = "unset" if field.default is None else f"`{field.default}`"
    return f"| `{name.upper()}` | {default} | {field.description} |"


def _subclasses(of: type[Refused]) -> Iterator[type[Refused]]:
    for subclass in of.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


def errors() -> str:
    own = {refused.code: refused.status for refused in _subclasses(Refused) if refused.status}
    rows = [
        f"| `{code}` | {status}{f', or {own[code]}' if code in own else ''} | {title} |"
        for code, (status, title) in sorted(PROBLEMS.items())
    ]
    return _page(
        "Errors",
        "Every refusal is an `application/problem+json` document (RFC 9457). Branch on `code`; "
        "its `type` is `/problems/<code>`, which the server answers too. Which operation gives "
        "the second of two statuses, the OpenAPI document says.",
        "| code | status | title |\n| --- | --- | --- |",
        rows,
    )


assert len(_REGISTERED) > 0, "importing the module is what registers the metrics"


def metric_names() -> list[tuple[str, str, str]]:
    """(name, type, help) of each metric of ours."""
    foreign = ("python_", "process_")
    return [
        (
            family.name + ("_total" if family.type == "counter" else ""),
            family.type,
            family.documentation,
        )
        for family in REGISTRY.collect()
        if not family.name.startswith(foreign)
    ]


def metric_page() -> str:
    rows = [f"| `{name}` | {kind} | {told} |" for name, kind, told in sorted(metric_names())]
    return _page(
        "Metrics",
        "At `/metrics`, of all server processes together. No label holds a user, a key or a URL.",
        "| metric | type | meaning |\n| --- | --- | --- |",
        rows,
    )


class EventType(NamedTuple):
    """What the outbox is told; a test compares all but `when` with the code that appends it."""

    type: str
    when: str
    aggregate: str
    consumers: tuple[str, ...]
    body: tuple[str, ...]


EVENTS: Final = (
    EventType(
        orders.PAYMENT_REQUESTED,
        "an order was placed: its provider is asked for the money, or its user's balance pays",
        "order",
        (orders.PAYMENTS, orders.WALLETS),
        ("order_id",),
    ),
    EventType(
        orders.TIMEOUT.type,
        "`ORDER_PAYMENT_TIMEOUT_SECONDS` after the provider was asked: an order that is still "
        "open is canceled",
        "order",
        (orders.TIMEOUT.consumer,),
        ("order_id", "payment_id"),
    ),
    EventType(
        orders.POLL.type,
        f"{orders.POLL_SECONDS:.0f} s after the provider named its payment, and again as often: "
        "it is asked what became of it, unless it has called back",
        "order",
        (orders.POLL.consumer,),
        ("order_id", "payment_id"),
    ),
    EventType(
        orders.REFUND.type,
        "money came in vain: the provider is asked to give it back",
        "order",
        (orders.REFUND.consumer,),
        ("order_id", "payment_id"),
    ),
    EventType(
        fake_payments.DECIDED,
        "a fake payment was made, one for each callback, due when that is: whoever waits is called",
        "fake_payment",
        (fake_payments.CONSUMER,),
        ("callback_url", "payment_id", "order_id", "status"),
    ),
    EventType(
        transfers.RECEIVED,
        "a transaction webhook was kept, due after its delay: it is posted to the ledger",
        "transfer",
        (transfers.CONSUMER,),
        ("transaction_id", "source_account", "destination_account", "amount", "currency"),
    ),
)


def events() -> str:
    rows = [
        f"| `{e.type}` | {e.when} | `{e.aggregate}:…` | {_names(e.consumers)} | {_names(e.body)} |"
        for e in EVENTS
    ]
    return _page(
        "Events",
        "What one transaction leaves for later, in the outbox: committed with what it tells of, "
        "handed to its consumers at least once, and shown by `picopay dead-letters` if they give "
        "it up. The body is JSON. An order's consumer is the one that its provider needs.",
        "| type | when | aggregate | consumers | body |\n| --- | --- | --- | --- | --- |",
        rows,
    )


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def command_page() -> str:
    lead = (
        "`make setup` leaves them in `.venv/bin/picopay`. Every command has `--help`, exits with "
        "another status than 0 if it fails, and says why in one sentence on standard error. Those "
        "that need the database use `DATABASE_URL`, or else the embedded one of the data "
        "directory."
    )
    parts = ["# Commands", _wrapped(lead)]
    for name, command in command_list():
        parts += [f"## {name}", *_helped(command), *_arguments(command)]
    return "\n\n".join(parts) + "\n"


def command_list() -> list[tuple[str, Any]]:
    """Each command by its whole name; groups have none of their own."""
    root: Any = typer.main.get_command(commands)
    return [*_commands("picopay", root)]


def _commands(prefix: str, group: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - Typer's own
    for name in group.list_commands(None):
        command = group.get_command(None, name)
        if hasattr(command, "list_commands"):
            yield from _commands(f"{prefix} {name}", command)
        else:
            yield f"{prefix} {name}", command


def _helped(command: Any) -> list[str]:  # noqa: ANN401 - Typer's own
    """What `--help` says, its examples as they are typed after `make setup`."""
    text = re.sub(r"\s*\n\s*\n\s*", "\n\n", command.help.strip())
    before, _, example = text.partition("Example: ")
    typed = re.sub(r"(^| )picopay ", r"\1.venv/bin/picopay ", example.strip().strip("`"))
    return [before.strip(), f"```bash\n{typed}\n```"]


def _arguments(command: Any) -> list[str]:  # noqa: ANN401 - Typer's own
    rows = [_argument(parameter) for parameter in command.params]
    if not rows:
        return []
    return ["| option | default | meaning |\n| --- | --- | --- |\n" + "\n".join(rows)]


def _argument(parameter: Any) -> str:  # noqa: ANN401 - Typer's own
    option = parameter.param_type_name == "option"
    name = parameter.opts[0] if option else str(parameter.name).upper()
    told, _, default = str(parameter.help or "").partition("[default: ")
    given = not parameter.required and parameter.default not in (None, False, [], ())
    shown = default.rstrip("]") or (f"`{parameter.default}`" if given else "")
    required = "required" if parameter.required else ""
    return f"| `{name}` | {shown or required} | {told.strip()} |"


# Which scope the operations of a tag ask for; tests/api/test_http_page.py asks the server.
SCOPES: Final[Mapping[str, str]] = {
    "Charges": "charges",
    "Users": "users",
    "Ledger": "ledger",
    "Orders": "orders",
    "Transactions": "transactions",
    "Dead letters": "admin",
}


def http() -> str:
    """One table for each tag of the OpenAPI document."""
    settings = Settings(database_url="postgresql://picopay@localhost/picopay")
    paths: dict[str, Any] = create_app(settings).openapi()["paths"]
    tables: dict[str, list[str]] = {}
    for path, item in paths.items():
        for method, operation in item.items():
            row = _operation(f"{method.upper()} {path}", operation)
            tables.setdefault(operation["tags"][0], []).append(row)
    lead = (
        "Every operation of the OpenAPI document, which the server shows at `/docs` and "
        "`picopay openapi` prints. A `curl` and an answer for each are in the "
        "[API examples](../api-examples.md); the codes are told in [Errors](errors.md)."
    )
    parts = ["# HTTP", _wrapped(lead)]
    head = (
        "| operation | does | asks for | answers | refuses with |\n| --- | --- | --- | --- | --- |"
    )
    for tag, rows in tables.items():
        parts += [f"## {tag}", head + "\n" + "\n".join(rows)]
    return "\n\n".join(parts) + "\n"


def _operation(name: str, operation: Any) -> str:  # noqa: ANN401 - JSON
    answers = [status for status in operation["responses"] if status < "400"]
    codes = [
        code
        for response in operation["responses"].values()
        for code in response.get("content", {}).get(PROBLEM, {}).get("examples", {})
    ]
    access = _access(operation, operation["tags"][0])
    refusals = _names(tuple(sorted(codes)))
    summary = operation["summary"]
    return f"| `{name}` | {summary} | {access} | {', '.join(answers)} | {refusals} |"


PROBLEM: Final = "application/problem+json"


def _access(operation: Any, tag: str) -> str:  # noqa: ANN401 - JSON
    security: list[dict[str, object]] = operation.get("security", [])
    schemes = {scheme for choice in security for scheme in choice}
    if any(given["name"] == "X-Signature" for given in operation.get("parameters", [])):
        return "a signature, `X-Signature`, as set"
    if "AdminSecret" in schemes:
        return "`X-Admin-Secret`"
    if "ApiKey" in schemes:
        scope = f"API key, scope `{SCOPES[tag]}`"
        return f"nothing, or {scope}, as set" if {} in security else scope
    return "nothing"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 100, break_on_hyphens=False, break_long_words=False)


def _page(title: str, lead: str, head: str, rows: list[str]) -> str:
    return f"# {title}\n\n{_wrapped(lead)}\n\n{head}\n" + "\n".join(rows) + "\n"


def pages() -> dict[Path, str]:
    return {
        FOLDER / "settings.md": settings(),
        FOLDER / "errors.md": errors(),
        FOLDER / "metrics.md": metric_page(),
        FOLDER / "events.md": events(),
        FOLDER / "commands.md": command_page(),
        FOLDER / "http.md": http(),
    }


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
        print(path)

"""Write docs/reference/{settings,errors,metrics}.md from the code that they describe.

A tidy test fails when they are out of date; `make docs` runs this.
"""

from pathlib import Path

from prometheus_client import REGISTRY
from pydantic.fields import FieldInfo

from picopay.infra.metrics import LATENCY_BUCKETS_SECONDS as _REGISTERED
from picopay.infra.problems import PROBLEMS
from picopay.infra.settings import Settings

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


def errors() -> str:
    rows = [
        f"| `{code}` | {status} | {title} |" for code, (status, title) in sorted(PROBLEMS.items())
    ]
    return _page(
        "Errors",
        "Every refusal is an `application/problem+json` document (RFC 9457). Branch on `code`; "
        "its `type` is `/problems/<code>`, which the server answers too.",
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


def _page(title: str, lead: str, head: str, rows: list[str]) -> str:
    return f"# {title}\n\n{lead}\n\n{head}\n" + "\n".join(rows) + "\n"


def pages() -> dict[Path, str]:
    return {
        FOLDER / "settings.md": settings(),
        FOLDER / "errors.md": errors(),
        FOLDER / "metrics.md": metric_page(),
    }


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
        print(path)

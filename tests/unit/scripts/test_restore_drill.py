"""What the restore drill would not let pass."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).parents[3] / "scripts"


@pytest.fixture
def drill(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))  # pyright: ignore[reportUnknownMemberType] - untyped
    spec = importlib.util.spec_from_file_location("restore_drill", SCRIPTS / "restore_drill.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "restore_drill", module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("restored", "complaint"),
    [
        ({"in flight", "early"}, None),
        ({"early"}, None),
        (set[str](), "1 charges answered before the point are missing"),
        ({"early", "late"}, "1 sent after it are there"),
        ({"early", "nobody's"}, "1 were never answered"),
    ],
)
def test_exactly_the_charges_of_before_the_point_are_accepted(
    drill: ModuleType, restored: set[str], complaint: str | None
) -> None:
    charges = drill.Charges({"early"}, {"late"}, {"early", "late", "in flight"})
    if complaint is None:
        assert charges.verdict(restored).startswith("all 1 answered before")
        return
    with pytest.raises(drill.DrillFailed, match=complaint):
        charges.verdict(restored)

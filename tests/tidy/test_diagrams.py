"""What ARCHITECTURE.md draws is what the code does."""

import re
from pathlib import Path

from picopay.orders.model import TRANSITIONS

DRAWN = (Path(__file__).parents[2] / "ARCHITECTURE.md").read_text()


def test_the_states_of_an_order_are_drawn_as_they_are() -> None:
    (diagram,) = [d for d in re.findall(r"```mermaid\n(.*?)```", DRAWN, re.DOTALL) if "paid" in d]
    arrows = set(re.findall(r"^ +(\S+) --> (\S+?):?(?: |$)", diagram, re.MULTILINE))
    assert {(a, b) for a, b in arrows if "[*]" not in (a, b)} == {
        (str(status), str(later)) for status, next_ in TRANSITIONS.items() for later in next_
    }
    assert {a for a, b in arrows if b == "[*]"} == {
        s for s, next_ in TRANSITIONS.items() if not next_
    }

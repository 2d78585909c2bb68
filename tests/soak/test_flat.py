"""Memory, descriptors and connections of server and worker do not grow with what they have done."""

import json
from pathlib import Path

import pytest
from tests.embedded.world import wait_until
from tests.soak.flat import Point, growth
from tests.soak.soak import Found, soak

LEAK = Path(__file__).with_name("leak")
SHORT_SECONDS_MAX = 600  # on a machine that is busy with the other tests
# By request: a leak of so much is seen. A longer run sees smaller ones.
SHORT_BYTES_MAX = 6 * 1024
LONG_BYTES_MAX = 512
HANDLES_MAX = 0.01  # descriptors and connections
SERVER_DESCRIPTORS_MAX = 150
CONNECTIONS_MAX = 80  # of server and worker: less than all their pools may have


def growing(found: Found, bytes_max: float) -> list[str]:
    grown = [f"memory of {name}" for name, more in found.memory_bytes.items() if more > bytes_max]
    grown += [f"files of {name}" for name, more in found.descriptors.items() if more > HANDLES_MAX]
    return grown + (["connections"] if found.connections > HANDLES_MAX else [])


def log(folder: Path) -> str:
    return (folder / "soak.log").read_text()


@pytest.mark.kill
@pytest.mark.timeout(SHORT_SECONDS_MAX)
def test_two_minutes_of_mixed_load_leave_nothing_behind(short_soak: Path) -> None:
    wait_until((short_soak / "ended").exists, SHORT_SECONDS_MAX - 30)
    told = short_soak / "soak.json"
    wait_until(lambda: told.exists() or "Traceback" in log(short_soak), 10)
    assert told.exists(), log(short_soak)[-4000:]
    found = Found(**json.loads(told.read_text()))
    assert growing(found, SHORT_BYTES_MAX) == [], found
    assert found.requests > 500
    assert max(found.descriptors_max.values()) < SERVER_DESCRIPTORS_MAX
    assert found.connections_max < CONNECTIONS_MAX


@pytest.mark.nightly
@pytest.mark.xdist_group("quiet")  # behind those that measure, who could not wait so long for it
@pytest.mark.timeout(2400)
async def test_half_an_hour_of_mixed_load_leaves_nothing_behind(
    tmp_path: Path, noisy: None
) -> None:
    found = await soak(tmp_path, 1800, pause_seconds=0.05)
    assert growing(found, LONG_BYTES_MAX) == [], found
    assert found.requests > 20_000


@pytest.mark.nightly
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("what", "seen"), [("memory", "memory of server"), ("descriptors", "files of server")]
)
async def test_a_leak_is_seen(tmp_path: Path, noisy: None, what: str, seen: str) -> None:
    environment = {"LEAK": what, "PYTHONPATH": str(LEAK)}
    found = await soak(tmp_path, 60, pause_seconds=0.2, leak=environment)
    assert seen in growing(found, SHORT_BYTES_MAX), found


def test_the_growth_is_of_the_line_and_not_of_what_lies_beside_it() -> None:
    line = [Point(10 * n, 1000 + 30 * n) for n in range(100)]
    assert growth(line) == pytest.approx(3)
    spikes = [p._replace(value=10**9) if n % 10 == 0 else p for n, p in enumerate(line)]
    assert growth(spikes) == pytest.approx(3, abs=0.5)
    saw = [Point(n, n % 7) for n in range(1000)]
    assert abs(growth(saw)) < 0.01
    assert growth([Point(5, 1), Point(5, 9), Point(6, 1)]) == -4  # the same moment tells nothing

"""The client's address: what trusted proxies say, and nothing that their clients made up."""

import time
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picopay.access.addresses import HOPS_MAX, client_address

TRUSTED = tuple(map(ip_network, ("10.0.0.0/8", "192.168.1.7/32", "fd00::/8")))
PROXY = "10.0.0.1"
CLIENT = "203.0.113.9"


def seen(*lines: str, name: str = "x-forwarded-for", peer: str | None = PROXY) -> str:
    headers = [(name.encode(), line.encode("latin-1")) for line in lines]
    return client_address(peer, [(b"host", b"shop"), *headers], TRUSTED)


@pytest.mark.parametrize(
    ("lines", "client"),
    [
        ([], PROXY),
        ([CLIENT], CLIENT),
        (["198.51.100.1, 203.0.113.9"], CLIENT),
        (["198.51.100.1", "203.0.113.9"], CLIENT),
        (["203.0.113.9, 10.0.0.2, 192.168.1.7"], CLIENT),
        (["203.0.113.9", "10.0.0.2"], CLIENT),
        (["192.168.1.8, 192.168.1.7"], "192.168.1.8"),
        ([" 203.0.113.9\t,\t10.0.0.2 "], CLIENT),
        (["203.0.113.9:51312"], CLIENT),
        (["::ffff:203.0.113.9"], CLIENT),
        (["2001:db8:1:2:3:4:5:6"], "2001:db8:1:2::/64"),
        (["2001:DB8:1:2::1"], "2001:db8:1:2::/64"),
        (["[2001:db8:1:2::1]:443"], "2001:db8:1:2::/64"),
        (["[2001:db8:1:2::1]"], "2001:db8:1:2::/64"),
        (["2001:db8::1, fd00::5"], "2001:db8::/64"),
        (["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        (["nonsense, 203.0.113.9"], CLIENT),
        ([", 203.0.113.9"], CLIENT),
    ],
)
def test_the_rightmost_address_that_is_no_trusted_proxy_is_the_client(
    lines: list[str], client: str
) -> None:
    assert seen(*lines) == client


@pytest.mark.parametrize(
    "line",
    [
        "",
        ",",
        "203.0.113.9,",
        "203.0.113.9, unknown",
        "203.0.113.9, nonsense, 10.0.0.2",
        "203.0.113.999",
        "203.0.113.09",
        "0x7f.1",
        "203.0.113.9:",
        "203.0.113.9:port",
        "203.0.113.9/32",
        "2001:db8::1::2",
        "[2001:db8::1",
        "\xb2\xb3\xb9.0.113.9",
        "\x00",
        "1" * 300,
        "203.0.113.9" + " " * 300,
    ],
)
def test_garbage_counts_as_the_proxy_that_passed_it_on(line: str) -> None:
    assert seen(line) == PROXY


@pytest.mark.parametrize(
    ("lines", "client"),
    [
        (["for=203.0.113.9"], CLIENT),
        (["For=203.0.113.9;proto=https;by=10.0.0.1"], CLIENT),
        (["proto=https; for=203.0.113.9"], CLIENT),
        (['for="203.0.113.9:8080"'], CLIENT),
        (['for="[2001:db8:1:2::17]:4711"'], "2001:db8:1:2::/64"),
        (["for=198.51.100.1, for=203.0.113.9, for=10.0.0.2;host=shop.example:8000"], CLIENT),
        (["for=198.51.100.1", "for=203.0.113.9"], CLIENT),
        (['for="', "for=203.0.113.9"], CLIENT),
        (["for=unknown"], PROXY),
        (["for=_hidden"], PROXY),
        (["proto=https"], PROXY),
        (["203.0.113.9"], PROXY),
        (["for=203.0.113.9;for=198.51.100.1"], PROXY),
        (["for=203.0.113.9;"], PROXY),
    ],
)
def test_the_standard_header_is_understood_too(lines: list[str], client: str) -> None:
    assert seen(*lines, name="forwarded") == client


@pytest.mark.parametrize(
    "host",
    ["a, for=6.6.6.6", "a, for=6.6.6.6;y=", 'a\\", for=6.6.6.6;y=\\"'],
)
def test_an_address_within_what_a_proxy_quotes_is_not_believed(host: str) -> None:
    assert seen(f'for=203.0.113.9;host="{host}"', name="forwarded") == PROXY


def test_headers_of_an_untrusted_peer_are_not_read() -> None:
    for name, line in (("x-forwarded-for", "6.6.6.6"), ("forwarded", "for=6.6.6.6")):
        assert seen(line, name=name, peer="198.51.100.7") == "198.51.100.7"
        assert seen(line, name=name, peer="2001:db8::7") == "2001:db8::/64"


def test_without_trusted_proxies_the_peer_is_the_client() -> None:
    assert client_address(PROXY, [(b"x-forwarded-for", b"6.6.6.6")], ()) == PROXY


def test_a_trusted_peer_is_recognised_in_the_spelling_of_the_other_family() -> None:
    assert seen(CLIENT, peer="::ffff:10.0.0.1") == CLIENT
    assert seen(CLIENT, peer="fd00::1") == CLIENT


@pytest.mark.parametrize("peer", [None, "", "/run/picopay.sock", "testclient"])
def test_without_any_address_all_are_one_subject(peer: str | None) -> None:
    assert seen(CLIENT, peer=peer) == "unknown"


@pytest.mark.parametrize(
    ("told", "standard", "client"),
    [
        (CLIENT, f"for={CLIENT}", CLIENT),
        (CLIENT, "for=6.6.6.6", PROXY),
        ("6.6.6.6", f"for={CLIENT}", PROXY),
        (CLIENT, "garbage", PROXY),
        ("garbage", "garbage", PROXY),
    ],
)
def test_two_headers_that_differ_are_both_disbelieved(
    told: str, standard: str, client: str
) -> None:
    """A proxy writes one of them; the other may be its client's invention."""
    headers = [(b"x-forwarded-for", told.encode()), (b"forwarded", standard.encode())]
    assert client_address(PROXY, headers, TRUSTED) == client


def test_more_proxies_in_a_row_than_anybody_has_are_not_followed() -> None:
    hops = ["10.0.0.2"] * (HOPS_MAX - 1)
    assert seen(", ".join([CLIENT, *hops])) == CLIENT
    assert seen(", ".join([CLIENT, "10.0.0.2", *hops])) == PROXY
    assert seen(*[CLIENT, *hops]) == CLIENT
    assert seen(*[CLIENT, "10.0.0.2", *hops]) == PROXY


@pytest.mark.parametrize(
    "lines",
    [
        ["," * 64_000],
        ["10.0.0.2," * 7_000 + "10.0.0.2"],
        ["10.0.0.2"] * 3_000,
        ["1" * 64_000],
        ["a=b;" * 16_000],
        ['for="' * 12_000],
        ["[" * 64_000],
    ],
)
@pytest.mark.parametrize("name", ["x-forwarded-for", "forwarded"])
def test_a_header_of_any_length_is_judged_at_once(lines: list[str], name: str) -> None:
    headers = [(name.encode(), line.encode()) for line in lines]
    started = time.process_time()
    assert client_address(PROXY, headers, TRUSTED) == PROXY
    assert time.process_time() - started < 0.02


@given(st.lists(st.binary(max_size=300), max_size=5), st.sampled_from([CLIENT, "2001:db8:1:2::3"]))
def test_whatever_a_client_sends_before_the_proxys_own_word_changes_nothing(
    forged: list[bytes], client: str
) -> None:
    subject = client_address(client, [], TRUSTED)
    headers = [(b"x-forwarded-for", line) for line in [*forged, client.encode()]]
    assert client_address(PROXY, headers, TRUSTED) == subject
    joined = b",".join([*forged, client.encode()])
    assert client_address(PROXY, [(b"x-forwarded-for", joined)], TRUSTED) == subject
    forwarded = b",".join([*forged, f'for="{client}"'.encode()])
    assert client_address(PROXY, [(b"forwarded", forwarded)], TRUSTED) == subject


@given(st.binary(max_size=300), st.sampled_from([b"x-forwarded-for", b"forwarded"]))
def test_any_bytes_are_judged(line: bytes, name: bytes) -> None:
    assert client_address(PROXY, [(name, line)], TRUSTED)

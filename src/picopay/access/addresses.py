"""Who is on the other side: the client's address, past the proxies that we trust. Pure.

Every proxy appends the address that it saw, so only what trusted ones have written, the right-hand
end, can be believed. Whatever is unclear counts as the proxy itself.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# Nobody has more proxies in a row; and no element of a header that we would read is longer.
HOPS_MAX: Final = 16
ELEMENT_BYTES_MAX: Final = 256

UNKNOWN: Final = "unknown"

# A household or a machine has a whole /64 to choose its addresses from.
_SITE_BITS: Final = 64

_WITH_PORT: Final = re.compile(r"\[([^\[\]]+)\](?::[0-9]{1,5})?|([^:\[\]]+):[0-9]{1,5}")
# RFC 7239, but strict about quotes: with a comma in one, an element does not begin where it seems.
_PAIR: Final = r'[ \t]*([A-Za-z-]+)=("[^"\\,;]*"|[^"\\,;\s]*)[ \t]*'
_FORWARDED: Final = re.compile(f"{_PAIR}(?:;{_PAIR})*")
_FORWARDED_PAIR: Final = re.compile(_PAIR)


def client_address(
    peer: str | None, headers: Iterable[tuple[bytes, bytes]], trusted: Sequence[Network]
) -> str:
    """The subject of limits: an IPv4 address, an IPv6 /64, or `unknown` without any address.

    `peer` is the other end of the connection, `headers` have lower-case names. A proxy writes
    `X-Forwarded-For` or `Forwarded`, and may let the other one through as its client sent it:
    if both are there and differ, neither is believed.
    """
    direct = _address(peer or "")
    if direct is None:
        return UNKNOWN
    if not _is_one_of(direct, trusted):
        return _subject(direct)
    lines: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        if name in _READERS:
            lines.setdefault(name, []).append(value)
    told = {_told(values, _READERS[name], trusted) for name, values in lines.items()}
    only = told.pop() if len(told) == 1 else None
    return _subject(only or direct)


def _told(
    values: Sequence[bytes], read: Callable[[str], Address | None], trusted: Sequence[Network]
) -> Address | None:
    """The rightmost address that is no trusted proxy's; the leftmost if all of them are."""
    # The tail alone is looked at: whatever is further left, its length costs nothing.
    tail = b",".join(values[-HOPS_MAX - 1 :]).rsplit(b",", HOPS_MAX)
    address = None
    for element in reversed(tail[-HOPS_MAX:]):
        if len(element) > ELEMENT_BYTES_MAX:
            return None
        address = read(element.decode("latin-1").strip(" \t"))
        if address is None or not _is_one_of(address, trusted):
            return address
    return address if len(tail) <= HOPS_MAX else None


def _forwarded_for(element: str) -> Address | None:
    if not _FORWARDED.fullmatch(element):
        return None
    given = [value for name, value in _FORWARDED_PAIR.findall(element) if name.lower() == "for"]
    return _address(given[0].strip('"')) if len(given) == 1 else None


def _address(text: str) -> Address | None:
    """Of an address as it is, or with a port as in URLs; IPv4 within IPv6 is IPv4."""
    if parts := _WITH_PORT.fullmatch(text):
        text = parts[1] or parts[2]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _is_one_of(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)


def _subject(address: Address) -> str:
    if isinstance(address, IPv4Address):
        return str(address)
    return str(IPv6Network((int(address), _SITE_BITS), strict=False))


_READERS: Final[dict[bytes, Callable[[str], Address | None]]] = {
    b"x-forwarded-for": _address,
    b"forwarded": _forwarded_for,
}

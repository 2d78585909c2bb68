"""Networks as settings name them."""

from ipaddress import IPv4Network, IPv6Network, ip_network


def networks(text: str | None) -> tuple[IPv4Network | IPv6Network, ...]:
    """The networks of a list with commas; a single address is one too. Raises ValueError."""
    parts = [part.strip() for part in (text or "").split(",")]
    try:
        return tuple(ip_network(part) for part in parts if part)
    except ValueError as error:
        raise ValueError(f"TRUSTED_PROXIES is not a list of networks: {error}") from None

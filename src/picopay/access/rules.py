"""How an API key is made, told apart from noise, and digested; how limits name their subjects.

Pure: chance is an argument.
"""

import hmac
import string
from typing import Final
from zlib import crc32

from picopay.access.model import Rule

_ALPHABET: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_RANDOM_CHARS: Final = 30
_CHECKSUM_CHARS: Final = 6
SECRET_BYTES: Final = 23  # more than 30 characters of 62 can hold: about 178 bits remain
SHOWN_CHARS: Final = 12
_SUBJECT_BYTES: Final = 16


def mint(randomness: bytes, *, live: bool) -> str:
    """`pk_live_` or `pk_test_`, 30 base-62 characters, and 6 of CRC-32 over what precedes.

    The checksum lets a typing error, or a scanner's find, be judged without asking anybody.
    """
    body = f"pk_{'live' if live else 'test'}_{_base62(randomness, _RANDOM_CHARS)}"
    return body + _checksum(body)


def well_formed(text: str) -> bool:
    body, checksum = text[:-_CHECKSUM_CHARS], text[-_CHECKSUM_CHARS:]
    shape = body.startswith(("pk_live_", "pk_test_")) and len(body) == _RANDOM_CHARS + 8
    return shape and checksum == _checksum(body)


def digest(pepper: bytes, text: str) -> bytes:
    """HMAC-SHA256 (RFC 2104): of no use to whoever reads the table without the pepper."""
    return hmac.digest(pepper, text.encode(), "sha256")


def limit_key(pepper: bytes, rule: Rule, subject: str) -> str:
    """The name of a rule's window for a subject, without a trace of the subject itself.

    All names share a hash tag, so that one script may touch any of them on a cluster too. Of
    another window's length is another name: members that one needs the other has dropped.
    """
    text = f"limit:{rule.name}:{rule.window_seconds}:{subject}"
    hidden = hmac.digest(pepper, text.encode(errors="surrogatepass"), "sha256")
    return f"picopay:{{limits}}:{rule.name}:{hidden[:_SUBJECT_BYTES].hex()}"


def retry_after_seconds(wait_us: int) -> int:
    """Whole seconds that are enough: rounded up, and at least one."""
    return max(1, -(-wait_us // 1_000_000))


def _checksum(body: str) -> str:
    return _base62(crc32(body.encode()).to_bytes(4, "big"), _CHECKSUM_CHARS)


def _base62(data: bytes, length: int) -> str:
    number = int.from_bytes(data, "big")
    chars: list[str] = []
    for _ in range(length):
        number, index = divmod(number, len(_ALPHABET))
        chars.append(_ALPHABET[index])
    return "".join(reversed(chars))

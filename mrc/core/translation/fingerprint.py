"""A record's fingerprint: the one way in which mrc recognises a record in another log.

Owns the byte layout that is hashed. Two records have equal fingerprints when timestamp, key, value and
headers (in order) are equal; None and empty differ. 64 bits: among 100,000 records that are compared with
one another, two different ones collide by chance with a probability of 3 in 10 billion.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from struct import Struct

_HEAD = Struct("<?qiii").pack
_HEADER = Struct("<ii").pack


def fingerprint(
    timestamp_ms: int | None,
    key: bytes | None,
    value: bytes | None,
    headers: Sequence[tuple[str, bytes | None]] | None,
) -> int:
    """Return a 64-bit unsigned hash of a record's content.

    Args:
        timestamp_ms: the record's timestamp; None where the two logs stamp on their own (LogAppendTime in the
            target), so that it must not be compared.
        key: None is another key than b"".
        value: None (a tombstone) is another value than b"".
        headers: in the record's order; None and no headers are the same, since Kafka does not tell them apart.
    """
    head = _HEAD(
        timestamp_ms is not None,
        timestamp_ms or 0,
        -1 if key is None else len(key),
        -1 if value is None else len(value),
        len(headers) if headers else 0,
    )
    body = head + (key or b"") + (value or b"")
    if headers:
        body += b"".join(_encode_header(name, content) for name, content in headers)
    return int.from_bytes(blake2b(body, digest_size=8).digest(), "little")


def _encode_header(name: str, content: bytes | None) -> bytes:
    encoded = name.encode()
    return _HEADER(len(encoded), -1 if content is None else len(content)) + encoded + (content or b"")

"""Fingerprints of the copies that were taken lately, so that one that comes again is told from one that nobody listed.

They are written down in rows of a fixed length, the oldest of which goes when there are too many. Nothing is decided by them: they tell
whether a record that is passed over is a dead letter.
"""

from __future__ import annotations

import struct
from collections import Counter, deque
from collections.abc import Iterable

from mrc.core.model import Region

LATELY = b"l"
"""What keys of rows begin with."""

ROW_LENGTH = 256
ROWS_MAX = 64


class Lately:
    """The last `ROW_LENGTH` times `ROWS_MAX` fingerprints of one region's copies; some 130 bytes each.

    Args:
        region: whose.
        written: its rows, by key, in order.
    """

    def __init__(self, region: Region, written: Iterable[tuple[bytes, bytes]]) -> None:
        self._begin = prefix(region)
        self._rows = deque((_number(key), _unpacked(value)) for key, value in written)
        self._counts = Counter(one for _, row in self._rows for one in row)
        self._changed: dict[bytes, bytes | None] = {}
        self._grown: set[int] = set()

    def __contains__(self, fingerprint: int) -> bool:
        return fingerprint in self._counts

    def add(self, fingerprint: int) -> None:
        """Note a copy that was taken."""
        if not self._rows or len(self._rows[-1][1]) == ROW_LENGTH:
            self._rows.append((self._rows[-1][0] + 1 if self._rows else 0, []))
            if len(self._rows) > ROWS_MAX:
                self._drop_first()
        number, row = self._rows[-1]
        row.append(fingerprint)
        self._counts[fingerprint] += 1
        self._grown.add(number)

    def writes(self) -> dict[bytes, bytes | None]:
        """Return what has changed since the last call, by key; None: the row goes."""
        changed, self._changed = self._changed, {}
        for number, row in self._rows:
            if number in self._grown:
                changed[self._key(number)] = struct.pack(f">{len(row)}Q", *row)
        self._grown.clear()
        return changed

    def _drop_first(self) -> None:
        number, row = self._rows.popleft()
        self._counts -= Counter(row)
        self._changed[self._key(number)] = None
        self._grown.discard(number)

    def _key(self, number: int) -> bytes:
        return self._begin + struct.pack(">q", number)


def prefix(region: Region) -> bytes:
    """Return what the keys of a region's rows begin with."""
    return LATELY + region.encode() + b"\0"


def _number(key: bytes) -> int:
    return int.from_bytes(key[-8:])


def _unpacked(row: bytes) -> list[int]:
    return list(struct.unpack(f">{len(row) // 8}Q", row))

"""Which entities are over, by their age, as it is written down: so those that are to be forgotten are found without looking at others.

A note may be out of date, for its entity came back or has got another note since. Whoever takes it up looks at the entity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

from mrc.ports import Shelf

OVER = b"d"
"""What keys of notes begin with; the latest clock of the entity and its key follow."""

LOOKED_AT_MAX = 500
"""Notes that are taken up in one batch."""

_CLOCK_BYTES = 8


class Deletions:
    """The notes of one partition.

    Args:
        shelf: holds them.
    """

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._changed: dict[bytes, bytes | None] = {}
        # No note on the shelf has a lesser key. Where notes have gone the disk is slow to look for more.
        self._lowest = OVER

    def add(self, key: bytes, latest_ms: int) -> None:
        """Note an entity that is over."""
        self._changed[_begin(latest_ms) + key] = b"1"

    def take(self, before_ms: int, look: Callable[[bytes], bool]) -> None:
        """Take up notes of entities from before ``before_ms``, oldest first; those for which ``look`` says so go."""
        end = _begin(before_ms)
        if self._lowest >= end:
            return
        lowest, stays, count = end, None, 0
        for note in self._below(end):
            if look(note[len(OVER) + _CLOCK_BYTES :]):
                self._changed.setdefault(note, None)
            else:
                stays = stays or note
            count += 1
            lowest = note
        self._lowest = stays or (lowest if count == LOOKED_AT_MAX else end)

    def writes(self) -> dict[bytes, bytes | None]:
        """Return what has changed since the last call, by key; None: the note goes."""
        changed, self._changed = self._changed, {}
        self._lowest = min([self._lowest, *(note for note, value in changed.items() if value is not None)])
        return changed

    def _below(self, end: bytes) -> Iterator[bytes]:
        for note, _ in islice(self._shelf.items(OVER, self._lowest), LOOKED_AT_MAX):
            if note >= end:
                return
            yield note


def _begin(clock_ms: int) -> bytes:
    return OVER + max(clock_ms, 0).to_bytes(_CLOCK_BYTES)

"""What a case expects of mrc at one position. Whatever is allowed here: no answer may skip, and a bound must hold."""

from __future__ import annotations

from typing import NamedTuple

REASONS = {
    "bounded": {"identical-records", "sent-again", "source-not-read-to-the-position"},
    "unknown": {"not-yet-replicated", "not-yet-read", "before-map", "never-copied", "records-changed", "no-map"},
}
"""The stable words that the documentation lists."""


class Want(NamedTuple):
    """The kinds of answers that will do, each with its reasons (none named: any stable one)."""

    kinds: dict[str, frozenset[str]]

    def __or__(self, other: object) -> Want:
        """Return what allows either."""
        if not isinstance(other, Want):
            return NotImplemented
        return Want({**self.kinds, **other.kinds})

    def takes(self, kind: str, reason: str) -> bool:
        """Whether an answer of this kind and for this reason will do."""
        return kind in self.kinds and (not self.kinds[kind] or reason in self.kinds[kind])

    def __str__(self) -> str:
        return " or ".join(f"{kind} ({', '.join(sorted(reasons))})" if reasons else kind for kind, reasons in self.kinds.items())


EXACT = Want({"exact": frozenset()})
ABSENT = Want({"absent": frozenset()})
"""No checkpoint at all: nothing is claimed."""


def bounded(*reasons: str) -> Want:
    """A bounded answer."""
    return Want({"bounded": frozenset(reasons)})


def unknown(*reasons: str) -> Want:
    """A refusal."""
    return Want({"unknown": frozenset(reasons)})

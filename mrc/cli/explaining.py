"""How a conflict came to be decided, in lines for people; the same for one that was resolved and for a story that rules are tried on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Explained(Protocol):
    """What is told of a conflict."""

    @property
    def id(self) -> str:
        """The conflict's id."""

    @property
    def type(self) -> str:
        """The conflict's type."""

    @property
    def steps(self) -> Sequence[str]:
        """How it was decided, sentence by sentence; the first one says how it was found."""


def explained(one: Explained) -> list[str]:
    """Return a line for the conflict and one for each step of its decision."""
    return [f"conflict {one.id} ({one.type})", *(f"  {number}. {step}" for number, step in enumerate(one.steps, 1))]

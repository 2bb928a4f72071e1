"""Processes that die at an effect.

What a process does to the world, or asks of it, goes through its ports. Every call of a port is an effect, whatever its name is, and so is
each batch that it yields: so a new effect is died at without a word here. Deaths are of the process that calls: a region's resolver, or a
person's command.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from mrc.core.errors import MrcError
from mrc.sim.streams import FakeShelf
from tests.resolver.world import Killed

_END = object()

Partly = Callable[[str, Sequence[Any]], None]
"""Does an effect to a part: how, and what it was given."""


class Death(NamedTuple):
    """When a process dies, and how.

    Attributes:
        at: number of the effect.
        how: ``before`` or ``after`` it; ``open``: a transaction's records are written and it is not ended; ``first``, ``last``: of the
            records that are to be appended only this one is written; ``unanswered``: it is done, and the process is told that nobody
            has answered, so that it gives up by itself.
        disk: what its machine's disk holds outlives it.
        away: its region's turns until it is started again.
        again: so many effects later somebody dies once more; 0: nobody.
    """

    at: int
    how: str
    disk: bool = True
    away: int = 0
    again: int = 0


class Point(NamedTuple):
    """Where somebody can die: the effect's number, whose it is, what it is, and how.

    ``left``: what the world is like then. Of two points at which the same one leaves the same world, one says as much as the other: what
    he had in mind is gone.
    """

    at: int
    region: str
    kind: str
    how: str
    left: object


class Watch:
    """Sees every effect, and lets a process die at one.

    Attributes:
        points: where somebody could have died so far; kept while nobody is to.
        world: returns what the world is like.
    """

    def __init__(self, death: Death | None) -> None:
        self._death = death
        self._count = 0
        self.points: list[Point] = []
        self.deaths = 0
        self.world: Callable[[], object] = lambda: None

    @property
    def disk(self) -> bool:
        """Whether disks outlive their processes."""
        return self._death is None or self._death.disk

    @property
    def away(self) -> int:
        """For how many turns who has died is away."""
        return 0 if self._death is None else self._death.away

    def how(self) -> tuple[int, str]:
        """Return an effect's number, and how its process dies at it; empty: it lives."""
        number, death = self._count, self._death
        self._count += 1
        if death is not None and number == death.at:
            return number, death.how
        return number, "before" if death is not None and death.again and number == death.at + death.again else ""

    def note(self, number: int, process: Process, kind: str, how: str) -> None:
        """Note where a process could die."""
        if self._death is None:
            left = (process, self.world()) if how in ("before", "after") else (number, how)
            self.points.append(Point(number, process.region, kind, how, left))


class Process:
    """Somebody who works through ports until he dies; from then on nothing that he calls happens."""

    def __init__(self, watch: Watch, region: str) -> None:
        self.region = region
        self._watch = watch
        self._dead = False

    def port(self, name: str, port: object, partly: Partly = lambda _how, _given: None) -> Any:
        """Return a port with every call watched."""
        return _Port(self, name, port, partly)

    def act(self, kind: str, do: Callable[[], Any], hows: Sequence[str] = (), partly: Callable[[str], None] = lambda _how: None) -> Any:
        """Do it, if he lives; and see whether he lives on."""
        if self._dead:
            raise Killed(kind)
        number, how = self._watch.how()
        for one in ("before", *hows):
            self._watch.note(number, self, kind, one)
        found = None
        if how in ("", "after", "unanswered"):
            found = do()
            self._watch.note(number, self, kind, "after")
        elif how != "before":
            partly(how)
        if how == "unanswered":
            self._watch.deaths += 1
            raise MrcError("UNREACHABLE", "it is not known whether it was done", where=self.region, retryable=True)
        if how:
            self._dead = True
            self._watch.deaths += 1
            raise Killed(kind)
        return found


class _Port:
    def __init__(self, process: Process, name: str, port: object, partly: Partly) -> None:
        self._process = process
        self._name = name
        self._port = port
        self._partly = partly

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._port, name)
        if not callable(found):
            return found
        kind = f"{self._name}.{name}"

        def call(*given: Any, **named: Any) -> Any:
            answer = self._process.act(kind, lambda: found(*given, **named), _hows(kind, given), lambda how: self._partly(how, given))
            if isinstance(answer, FakeShelf):
                return self._process.port("shelf", answer)
            return self._each(kind, answer) if isinstance(answer, Iterator) else answer

        return call

    def _each(self, kind: str, batches: Iterator[Any]) -> Iterator[Any]:
        while (batch := self._process.act(f"{kind}.next", lambda: next(batches, _END))) is not _END:
            yield batch


def _hows(kind: str, given: Sequence[Any]) -> tuple[str, ...]:
    match kind:
        case "log.commit":
            return ("open", "unanswered")
        case "log.append":
            return ("first", "last", "unanswered") if len(given[0]) > 1 else ("unanswered",)
        case "log.poll":
            return ("unanswered",)
        case _:
            return ()

"""One region's docket: what its resolver has decided, and where people decide what is open. For commands, and for agents that are asked.

Everything is read anew from the region's logs, and nothing is kept between two calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from mrc.core.errors import MrcError
from mrc.core.model import Offset, Region, TopicPartition
from mrc.ports import Arrived, Clock, Logs, Span
from mrc.resolver.audit import Audit, Filter, News, Progress, Stats, unheard
from mrc.resolver.deciding import Answer, Append, Desk, chosen, decided_by
from mrc.resolver.kinds import Kind, topics
from mrc.resolver.writing import ConflictRecord

RECORDS_MAX = 1_000_000
"""So many records are read for one call of somebody who asks an agent."""

PAUSE_S_MAX = 0.25


class Docket:
    """One region's conflicts.

    Attributes:
        here: the region.

    Args:
        logs: of the region.
        append: writes there.
        here: the region.
        kinds: whose conflicts.
        clock: for waiting, and for when a decision was given.
        warn: is told of a record that cannot be read; it is left out.
        progress: is told how far a reading is.
    """

    def __init__(
        self,
        logs: Logs,
        append: Append,
        here: Region,
        kinds: Sequence[Kind],
        clock: Clock,
        warn: Callable[[str], None],
        progress: Progress = unheard,
    ) -> None:
        self._audit = Audit(logs, here, kinds, warn, progress)
        self._desk = Desk(logs, append, here, clock)
        self.here = here
        self._kinds = kinds

    def newest(self, wanted: Filter, limit: int) -> list[ConflictRecord]:
        """See `Audit.newest`. Raises ``BAD_REQUEST`` for an outcome that there is not."""
        self._check(wanted)
        return self._audit.newest(wanted, limit)

    def find(self, id: str) -> ConflictRecord | None:
        """See `Audit.find`."""
        return self._audit.find(id)

    def follow(self, wanted: Filter, cursor: str = "") -> Iterator[News]:
        """See `Audit.follow`. Raises ``BAD_REQUEST`` for an outcome that there is not."""
        self._check(wanted)
        yield from self._audit.follow(wanted, cursor)

    def stats(self, since_ms: int | None) -> Stats:
        """See `Audit.stats`."""
        return self._audit.stats(since_ms)

    def decide(self, id: str, winner: str, decision: str, actor: str, reason: str, wait_s: float) -> Answer:
        """Let an event of the open conflict ``id`` stand; the same ``decision`` (an id, unique) may be given again.

        Args:
            id: of the conflict.
            winner: the event, or its region, see `chosen`.
            decision, actor, reason, wait_s: see `Desk.give`.

        Raises:
            MrcError: ``UNKNOWN_CONFLICT``; as `chosen` and `Desk.give`.
        """
        names = {one.conflicts: one for one in (topics(kind, self.here) for kind in self._kinds)}
        since = self._desk.ends([*names.values()])
        found = self._audit.place(id)
        if found is None:
            raise unknown(id, self.here)
        tp, one = found
        before = decided_by(one, decision)
        if before is not None:
            return Answer("decided", before, "", one)
        return self._desk.give(names[tp.topic], tp.partition, one, chosen(one, winner), decision, actor, reason, wait_s, since)

    def _check(self, wanted: Filter) -> None:
        outcomes = sorted({"open", "superseded", *(region for kind in self._kinds for region in kind.regions)})
        if wanted.outcome and wanted.outcome not in outcomes:
            raise MrcError("BAD_REQUEST", f"outcome {wanted.outcome}: there are {', '.join(outcomes)}", where="outcome")


def unknown(id: str, here: Region) -> MrcError:
    """Return what is said of a conflict that a region has not written."""
    return MrcError("UNKNOWN_CONFLICT", f"no conflict {id} in {here}", where=here)


class SparingLogs:
    """Logs that are read beside work that must not wait, for somebody who may go.

    Between two batches it is asked whether he is still there, and rested as long as the batch has taken, so that of one core half is left.

    Args:
        logs: what is read.
        clock: for resting.
        check: raises where nobody wants more.
        records_max: how many records are read in all, besides those that are followed.
    """

    def __init__(self, logs: Logs, clock: Clock, check: Callable[[], None], records_max: int = RECORDS_MAX) -> None:
        self._logs = logs
        self._clock = clock
        self._check = check
        self._left = records_max
        self._records_max = records_max

    def spans(self, topics: Sequence[str], since_ms: int | None = None) -> dict[TopicPartition, Span]:
        """See `Logs.spans`."""
        self._check()
        return self._logs.spans(topics, since_ms)

    def read(self, spans: Mapping[TopicPartition, Span]) -> Iterator[list[Arrived]]:
        """See `Logs.read`. Raises ``TOO_MUCH_TO_READ``."""
        for batch in self._resting(self._logs.read(spans)):
            self._left -= len(batch)
            if self._left < 0:
                raise MrcError("TOO_MUCH_TO_READ", f"more than {self._records_max:,} records were to be read for one call")
            yield batch

    def follow(self, begin: Mapping[TopicPartition, Offset], passed: dict[TopicPartition, Offset] | None = None) -> Iterator[list[Arrived]]:
        """See `Logs.follow`."""
        yield from self._resting(self._logs.follow(begin, passed))

    def close(self) -> None:
        """See `Logs.close`."""
        self._logs.close()

    def _resting(self, batches: Iterator[list[Arrived]]) -> Iterator[list[Arrived]]:
        for batch in batches:
            self._check()
            began_s = self._clock.monotonic_s()
            yield batch
            if batch:
                self._clock.sleep(min(PAUSE_S_MAX, self._clock.monotonic_s() - began_s))

"""Writing in transactions, in memory: the `Emitter` port over a cluster's logs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from mrc.core.errors import MrcError
from mrc.ports import Emitted
from mrc.sim.log import Record

if TYPE_CHECKING:
    from mrc.sim.cluster import FakeCluster


TIMEOUT_S = 10.0
"""How long a transaction may be open before the cluster breaks it off, as Kafka does by ``transaction.timeout.ms``."""


class Holder(NamedTuple):
    """The newest emitter of a name: how many there have been, the transaction that it has open (0: none), and until when it may."""

    number: int
    transaction: int = 0
    until_s: float = 0.0


class FakeEmitter:
    """One of a name; ``cluster.emitters`` has the newest."""

    def __init__(self, cluster: FakeCluster, name: str) -> None:
        self._cluster = cluster
        self._name = name
        before = cluster.emitters.get(name, Holder(0))
        if before.transaction:
            cluster.finish(before.transaction, commit=False)
        self._number = before.number + 1
        cluster.emitters[name] = Holder(self._number)

    def send(self, records: Sequence[Emitted]) -> None:
        """See `Emitter.send`."""
        transaction = self._current() or self._cluster.begin()
        logs = [self._cluster.log(record.tp) for record in records]
        until_s = self._cluster.clock.monotonic_s() + TIMEOUT_S
        self._cluster.emitters[self._name] = Holder(self._number, transaction, until_s)
        for record, log in zip(records, logs, strict=True):
            log.append(Record(record.key, record.value, record.timestamp_ms, record.headers), transaction)

    def commit(self) -> None:
        """See `Emitter.commit`."""
        transaction = self._current()
        if transaction:
            self._cluster.finish(transaction, commit=True)
            self._cluster.emitters[self._name] = Holder(self._number)

    def close(self) -> None:
        """See `Emitter.close`; as in Kafka an open transaction stays open until its time-out, or the next of this name."""

    def _current(self) -> int:
        """Return the open transaction, 0 where there is none."""
        holder = self._cluster.emitters[self._name]
        if holder.number != self._number:
            raise MrcError("STALE_TERM", f"somebody else writes as {self._name} now", where=self._cluster.region)
        return holder.transaction

"""Applications of a run: producers and consumer groups that follow the record, and some that do not.

They remember what was acknowledged to them and what they processed, in one order for all: checkers judge by that and by the logs.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import msgspec

from mrc.core.errors import MrcError
from mrc.core.inventory import Position
from mrc.core.model import ActiveRecord, GroupId, Offset, Region, TopicPartition
from mrc.sim.world import CONSUMER, PRODUCER, World

_ENTITIES = 50
"""Keys of a compacted topic."""


class Ack(msgspec.Struct, frozen=True):
    """An acknowledged record.

    Attributes:
        order: of all that was observed, the how-manyth.
        client: who wrote it.
        written: of all that was observed, the how-manyth the writing was, where the acknowledgement came later; 0: it did not.
    """

    order: int
    at_s: float
    region: Region
    tp: TopicPartition
    offset: int
    value: bytes
    client: str
    written: int = 0


class Observed:
    """What the clients and the watcher of the record saw, in order."""

    def __init__(self) -> None:
        self._orders = itertools.count(1)
        self.acks: list[Ack] = []

    def order(self) -> int:
        """Return the next place in the order of everything."""
        return next(self._orders)


class Place:
    """Where a client is, and what it knows of the record.

    Attributes:
        region: its own region.
        record: as it last read it.
    """

    def __init__(self, world: World, region: Region, record: Callable[[], ActiveRecord], cut: Callable[[Region], bool]) -> None:
        self.world = world
        self.region = region
        self._read = record
        self._cut = cut
        self.record = record()

    def refresh(self) -> None:
        """Read the record, where the region is not cut off from ZooKeeper."""
        if self.world.ensemble.quorum and not self._cut(self.region):
            self.record = self._read()

    def reaches(self, region: Region) -> bool:
        """Whether a client here reaches a region's cluster."""
        return self.world.clusters[region].reachable and (region == self.region or not (self._cut(region) or self._cut(self.region)))


class Producer:
    """Writes records of unlike values; one that is stubborn always writes in its own region, whatever the record says."""

    def __init__(self, name: str, place: Place, observed: Observed, now_s: Callable[[], float], *, stubborn: bool) -> None:
        self.name = name
        self.place = place
        self._observed = observed
        self._now_s = now_s
        self._stubborn = stubborn
        self._tps = place.world.tps()
        self._number = 0
        self._transactions: dict[int, tuple[Region, list[tuple[TopicPartition, int, bytes, int]]]] = {}

    def where(self) -> Region | None:
        """Return the region to write in; None while none is open."""
        if self._stubborn:
            return self.place.region
        return self.place.record.region if self.place.record.state == "open" else None

    def write(self, count: int, rng: random.Random) -> int:
        """Write some records; return how many were acknowledged."""
        region = self.where()
        if region is None or not self.place.reaches(region):
            return 0
        acked = 0
        for _ in range(count):
            tp, value = rng.choice(self._tps), self._value()
            try:
                offset = self.place.world.clusters[region].produce(PRODUCER, tp, self._key(tp, value), value)
            except MrcError:
                continue
            self._acked(region, tp, offset, value)
            acked += 1
        return acked

    def begin(self, count: int, rng: random.Random) -> int:
        """Write some records in a transaction that stays open; return it, 0 where none was written."""
        region = self.where()
        if region is None or not self.place.reaches(region):
            return 0
        cluster = self.place.world.clusters[region]
        transaction = cluster.begin()
        written = []
        for _ in range(count):
            tp, value = rng.choice(self._tps), self._value()
            try:
                offset = int(cluster.produce(PRODUCER, tp, self._key(tp, value), value, transaction=transaction))
                written.append((tp, offset, value, self._observed.order()))
            except MrcError:
                continue
        if not written:
            return 0
        self._transactions[transaction] = region, written
        return transaction

    def end(self, transaction: int, *, commit: bool) -> bool:
        """End a transaction; committed records are acknowledged. Return False while its region does not answer."""
        region, written = self._transactions[transaction]
        cluster = self.place.world.clusters[region]
        if not self.place.reaches(region):
            return False
        held = [one for one in written if cluster.log(one[0]).holds(one[1], one[2])]
        cluster.finish(transaction, commit=commit)
        del self._transactions[transaction]
        if commit:
            for tp, offset, value, order in held:
                self._acked(region, tp, offset, value, order)
        return True

    def _value(self) -> bytes:
        self._number += 1
        return f"{self.name}-{self._number}".encode()

    def _key(self, tp: TopicPartition, value: bytes) -> bytes:
        """Return the record's key: one of a few entities where the topic keeps the last record of each, else its own."""
        compacted = "compact" in self.place.world.clusters[self.place.region].contents[tp.topic].config["cleanup.policy"]
        return b"entity-%d" % (self._number % _ENTITIES) if compacted else value

    def _acked(self, region: Region, tp: TopicPartition, offset: int, value: bytes, written: int = 0) -> None:
        self._observed.acks.append(Ack(self._observed.order(), self._now_s(), region, tp, offset, value, self.name, written))


class Consumer:
    """The one member of a group: it processes, commits, and goes where the record says.

    ``auto.offset.reset`` is ``latest``, the setting that skips, so a position that is missing or out of range is not forgiven,
    once the group has committed any.

    Attributes:
        processed: every value that it processed.
        stays: it does not heed the record.
        idle: it processes nothing.
    """

    def __init__(self, group: GroupId, place: Place, batch: int) -> None:
        self.group = group
        self.place = place
        self.processed: set[bytes] = set()
        self.again = 0
        self.batch = batch
        self.stays = False
        self.idle = False
        self._joined: Region | None = None
        self._positions: dict[TopicPartition, int] = {}
        self._committed = False

    def gone(self, region: Region) -> None:
        """The region has died: whoever was there is no member any more."""
        if self._joined == region:
            self._joined = None

    def turn(self, rng: random.Random) -> None:
        """Join, leave, process, commit: what there is to do."""
        record = self.place.record
        if self._joined is not None and not self.stays and (record.state, record.region) != ("open", self._joined):
            self._leave(self._joined)
        if self._joined is None and record.state == "open" and self.place.reaches(record.region):
            self._join(record.region)
        if self._joined is not None and not self.idle and self.place.reaches(self._joined):
            self._process(self._joined, commit=rng.random() < 0.7)

    def _join(self, region: Region) -> None:
        cluster = self.place.world.clusters[region]
        try:
            cluster.join(CONSUMER, self.group)
            committed = cluster.positions(self.group)
        except MrcError:
            return
        self._joined = region
        self._positions = {}
        for tp in self.place.world.read_tps(region):
            log = cluster.log(tp)
            begin = committed[tp].offset if tp in committed else -1 if self._committed else 0
            self._positions[tp] = begin if log.start <= begin <= log.end else log.end

    def _leave(self, region: Region) -> None:
        if not self.place.reaches(region):
            self._joined = None  # the broker lets the member go when its session times out
            self.place.world.clusters[region].members_of[self.group].members = 0
            return
        self._commit(region)
        self.place.world.clusters[region].leave(self.group)
        self._joined = None

    def _process(self, region: Region, *, commit: bool) -> None:
        cluster = self.place.world.clusters[region]
        if not cluster.acls.allows(CONSUMER, "read", "group", self.group):
            self._joined = None  # fenced out: heartbeats are refused
            cluster.leave(self.group)
            return
        for tp in self._positions:
            log = cluster.log(tp)
            for entry in itertools.islice(log.visible(self._positions[tp], log.end), self.batch):
                if entry.record is not None and entry.record.value is not None:
                    self.again += entry.record.value in self.processed
                    self.processed.add(entry.record.value)
                self._positions[tp] = entry.offset + 1
        if commit:
            self._commit(region)

    def _commit(self, region: Region) -> None:
        positions = {tp: Position(Offset(offset)) for tp, offset in self._positions.items()}
        try:
            self.place.world.clusters[region].commit_as_member(CONSUMER, self.group, positions)
            self._committed = True
        except MrcError:
            return

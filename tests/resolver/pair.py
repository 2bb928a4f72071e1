"""East and west with resolvers by a rules file, over an in-memory Kafka, and stories that are written and resolved there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from urllib.parse import quote

import msgspec
import pytest

from mrc.core.conflict.story import Told, events
from mrc.core.model import Offset, Region, TopicPartition
from mrc.ports import Arrived
from mrc.resolver.kinds import Kind
from mrc.sim.clock import FakeClock
from mrc.sim.streams import FakeLogs, StreamCluster
from mrc.wiring import conflicts as wiring
from tests.resolver.world import Site, headers_of, value_of

ROUNDS = 6
"""Enough for everything to be copied, marked and decided."""


class Pair:
    """Both regions. What is told is written in its region, copied and resolved, until it is final; clocks are those of the stories."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.clock = FakeClock(now_ms=1_000)
        self.sites = {region: Site(region, kind, self.clock) for region in kind.regions}
        self._copied: dict[str, int] = {}
        self.before_append: Callable[[], None] = lambda: None
        self.copying = True
        for site in self.sites.values():
            site.start()

    def tell(self, key: str, told: Sequence[Told]) -> None:
        """Let a story happen about one entity; its events' ids begin with the key: ``17-e1``."""
        for one in events(told, f"{self.kind.name}/{key}", self.kind.regions):
            event = msgspec.structs.replace(one, id=f"{quote(key)}-{one.id}")
            self.sites[event.origin].cluster.write(self.kind.topic, 0, key.encode(), value_of(event), headers_of(event))

    def settle(self, copying: bool | None = None) -> None:
        """Let resolvers and, if ``copying``, mirrors work until nothing is left to do."""
        copying = self.copying if copying is None else copying
        for _ in range(ROUNDS):
            self.clock.sleep(100)
            for site in self.sites.values():
                site.tick()
                site.tick()
            for source in self.sites.values():
                for target in self.sites.values():
                    if copying and source is not target:
                        self._copy(source, target)

    def _copy(self, source: Site, target: Site) -> None:
        names = {source.topics.topic: target.topics.events[source.region], source.topics.own_marks: target.topics.marks[source.region]}
        for name, copied in names.items():
            for partition in range(2):
                records = source.cluster.read(name, partition)
                at = f"{source.region} {copied}-{partition}"
                for record in records[self._copied.get(at, 0) :]:
                    target.cluster.write(copied, partition, record.key, record.value, record.headers, record.timestamp_ms)
                self._copied[at] = len(records)

    def restart(self, region: str, kind: Kind) -> None:
        """Start a region's resolver again, with another rules file."""
        site = self.sites[Region(region)]
        site.stop("a")
        site.kind = kind
        site.start()

    def no_answer(self, region: str) -> None:
        """Let a region have no topics any more."""
        self.sites[Region(region)].cluster = StreamCluster()

    def instead_of_kafka(self, patch: pytest.MonkeyPatch) -> None:
        """Let commands read these regions' logs."""
        patch.setattr(wiring, "KafkaLogs", lambda region, _access, _deadline_s: PairLogs(self, region))
        patch.setattr(wiring, "Appender", lambda _access, region, _deadline_s: PairAppender(self, region))
        patch.setattr(wiring, "SystemClock", lambda: self.clock)


class PairLogs(FakeLogs):
    """One region's logs; while they are followed, the pair lives on."""

    def __init__(self, pair: Pair, region: str) -> None:
        super().__init__(pair.sites[Region(region)].cluster)
        self._pair = pair

    def follow(self, begin: Mapping[TopicPartition, Offset], passed: dict[TopicPartition, Offset] | None = None) -> Iterator[list[Arrived]]:
        """See `Logs.follow`."""
        for batch in super().follow(begin, passed):
            yield batch
            self._pair.settle()


class PairAppender:
    """Writes to one region; before that happens `Pair.before_append`."""

    def __init__(self, pair: Pair, region: str) -> None:
        self._pair = pair
        self._region = Region(region)

    def append(self, topic: str, entries: Sequence[tuple[bytes, bytes | None]], partition: int = 0) -> None:
        """See `Appender.append`."""
        self._pair.before_append()
        for key, value in entries:
            self._pair.sites[self._region].cluster.write(topic, partition, key, value, ())

    def close(self) -> None:
        """Nothing is held."""

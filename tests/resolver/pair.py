"""East and west with resolvers by a rules file, over an in-memory Kafka, and stories that are written and resolved there."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from mrc.core.conflict.story import Told, events
from mrc.core.model import Region
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
        for site in self.sites.values():
            site.start()

    def tell(self, key: str, told: Sequence[Told]) -> None:
        """Let a story happen about one entity."""
        for event in events(told, f"{self.kind.name}/{key}", self.kind.regions):
            self.sites[event.origin].cluster.write(self.kind.topic, 0, key.encode(), value_of(event), headers_of(event))

    def settle(self, copying: bool = True) -> None:
        """Let resolvers and, if ``copying``, mirrors work until nothing is left to do."""
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
        patch.setattr(wiring, "KafkaLogs", lambda region, _access, _deadline_s: FakeLogs(self.sites[region].cluster))

"""Which rules the regions' resolvers have and decide by, as their last marks say. Nothing is written and no group is joined."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from mrc.core.errors import MrcError
from mrc.core.model import Region, TopicPartition, Value
from mrc.ports import Logs, Span
from mrc.resolver.audit import strides
from mrc.resolver.deciding import mark_of
from mrc.resolver.kinds import Kind, topics

STRIDE_RECORDS = 20
"""How many records of a partition are read first, from the end backwards; a mark is nearly always among them."""


class Said(Value, frozen=True):
    """The last mark of one region about one partition.

    Attributes:
        has: the version of the rules that its resolver was started with.
        by: the version by which it decides.
        at_ms: the mark's clock.
    """

    has: str
    by: str
    at_ms: int


class TopicRules(Value, frozen=True):
    """The rules of one topic.

    Attributes:
        file: the version that the rules file says here.
        regions: per region, by partition, what it says; None: the region does not answer.
        partitions: how many there are.
    """

    topic: str
    file: str
    partitions: int
    regions: Mapping[Region, Mapping[int, Said] | None]

    @property
    def state(self) -> Literal["agreed", "changing", "suspended", "unknown"]:
        """What a person would call it.

        ``agreed``: all decide by what all have. ``changing``: all have the same, and some have not come to it yet. ``suspended``: they
        have not the same, and what comes waits. ``unknown``: a region does not answer, or has written no mark about some partition.
        """
        said = [one for region in self.regions.values() for one in (region or {}).values()]
        if len({one.has for one in said}) > 1:
            return "suspended"
        if any(region is None or len(region) < self.partitions for region in self.regions.values()):
            return "unknown"
        return "agreed" if all(one.by == one.has for one in said) else "changing"


def versions(logs: Mapping[Region, Logs], kinds: Iterable[Kind]) -> list[TopicRules]:
    """Return what each region says of each topic; one that does not answer is told by None.

    Raises:
        MrcError: ``TOPICS_MISSING`` where no region has any mark's topic.
    """
    found = []
    for kind in kinds:
        regions: dict[Region, Mapping[int, Said] | None] = {}
        partitions = 0
        failed: MrcError | None = None
        for region, one in logs.items():
            try:
                spans = one.spans([topics(kind, region).own_marks])
            except MrcError as error:
                if error.kind != "world":
                    raise
                failed, regions[region] = error, None
                continue
            partitions = max(partitions, len(spans))
            regions[region] = _last(one, spans)
        if failed is not None and all(one is None for one in regions.values()):
            raise failed
        found.append(TopicRules(kind.topic, kind.rules.hash, partitions, regions))
    return found


def _last(logs: Logs, spans: Mapping[TopicPartition, Span]) -> dict[int, Said]:
    """Return the last mark of each partition, reading backwards until there is one."""
    found: dict[int, Said] = {}
    for part in strides(spans, STRIDE_RECORDS, lambda tp: tp.partition in found):
        for batch in logs.read(part):
            for record in batch:
                if (mark := mark_of(record)) is not None:
                    found[record.partition] = Said(mark.rules, mark.by, mark.clock_ms)
    return found

"""The log that holds a tail: which policy can be right for it, what a purge takes, what a superseding record says.

``purge`` deletes everything up to a tail's end, the standing records below the tail with it: right where nobody has to read them any more.
``supersede`` writes, behind the tail, what the open region's log says of each entity whose last record is a tail's: right where a topic is
its entities' last records, which is what compaction means. Pure functions of what was seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from mrc.core.failover.divergence import origin_of, own_headers
from mrc.core.failover.ledger import Ledger, Tail
from mrc.core.inventory import Recovery, TopicInfo
from mrc.core.model import GroupId, Offset, Record, Region, TopicPartition, Value, Written, decode, encode
from mrc.core.views import FindingView

STANDING_HEADER = "mrc-standing"
"""On every superseding record: what it repeats, as `Standing` in JSON."""


class Standing(Written, frozen=True):
    """What a superseding record repeats: the last record of its entity in the open region.

    Attributes:
        region: the open one.
        topic: the superseding record's own, and the repeated one's. Applications pass headers on to what they write elsewhere.
        partition: of both.
        offset: in the open region; -1 where it has none, and the superseding record is a tombstone.
        timestamp_ms: of that record; -1 where there is none.
    """

    region: str
    topic: str
    partition: int
    offset: int
    timestamp_ms: int


class Held(Value, frozen=True):
    """A partition of the old region whose log holds tails.

    Attributes:
        tails: those that it still holds, oldest first.
        start: where the log begins now.
    """

    tp: TopicPartition
    tails: tuple[Tail, ...]
    start: Offset

    @property
    def begin(self) -> Offset:
        """The first offset of the first tail that can still be there."""
        return Offset(max(self.start, self.tails[0].begin))

    @property
    def end(self) -> Offset:
        """Where the last tail ends: copies come behind it."""
        return Offset(self.tails[-1].end)

    @property
    def mirror_end(self) -> Offset:
        """Where the mirror ended in the other region when the last tail was left: a group at or past it has read all below that."""
        return self.tails[-1].mirror_end

    @property
    def records(self) -> int:
        """How many divergent records the tails were listed with."""
        return sum(tail.records for tail in self.tails)

    def in_a_tail(self, offset: int) -> bool:
        """Whether the record at an offset is divergent."""
        return any(tail.begin <= offset < tail.end for tail in self.tails)


def tailed(ledgers: Iterable[Ledger], topics: Mapping[str, TopicInfo]) -> dict[TopicPartition, tuple[Tail, ...]]:
    """Return the tails with records of these listed entries of a region, by partition, in the order of their offsets.

    Args:
        topics: of the region as they are now. What was listed in one that was deleted or made anew since has no place any more.
    """
    found: dict[TopicPartition, list[Tail]] = {}
    for ledger in ledgers:
        for tail in ledger.tails:
            info = topics.get(tail.topic)
            if tail.records > 0 and info is not None and ledger.topic_ids.get(tail.topic, info.topic_id) == info.topic_id:
                found.setdefault(TopicPartition(tail.topic, tail.partition), []).append(tail)
    return {tp: tuple(sorted(tails, key=lambda tail: tail.end)) for tp, tails in sorted(found.items())}


def held(tails: Mapping[TopicPartition, tuple[Tail, ...]], starts: Mapping[TopicPartition, Offset]) -> tuple[Held, ...]:
    """Return the partitions whose logs still hold some of their tails: a log that begins behind one holds it no more."""
    found = []
    for tp, some in tails.items():
        left = tuple(tail for tail in some if tail.end > starts[tp])
        if left:
            found.append(Held(tp, left, starts[tp]))
    return tuple(found)


def unfit(policy: str, topic: str, cleanups: Sequence[str]) -> str:
    """Return why a policy cannot be right for a topic with these ``cleanup.policy`` in the two regions; empty where it can."""
    said = " and ".join(dict.fromkeys(cleanups))
    if policy == "supersede" and not all("compact" in one for one in cleanups):
        return (
            f"{topic} is not compacted (cleanup.policy={said}): its records are events, not the state of their keys, so none takes "
            f"another's place; allowed: keep, recreate, purge"
        )
    if policy == "purge" and any("compact" in one for one in cleanups):
        return (
            f"{topic} is compacted (cleanup.policy={said}): below the tail stands the state of keys that nobody has written since; "
            f"allowed: keep, recreate, supersede"
        )
    return ""


def superseding(tp: TopicPartition, record: Record | None, region: Region) -> tuple[bytes | None, tuple[tuple[str, bytes | None], ...]]:
    """Return value and headers of the record that says once more what stands of an entity: a tombstone where the region has none of it.

    The header makes it unlike what it repeats, so that no copy is ever taken for it; it does not count as re-emitted.
    """
    if record is None:
        return None, ((STANDING_HEADER, encode(Standing(region, tp.topic, tp.partition, -1, -1))),)
    headers = own_headers(record) if origin_of(record) is not None else record.headers
    said = Standing(region, tp.topic, tp.partition, record.offset, record.timestamp_ms)
    return record.value, (*headers, (STANDING_HEADER, encode(said)))


def is_superseding(record: Record, region: Region, tp: TopicPartition) -> bool:
    """Whether a record of a region's log repeats what stands in the other region, behind a tail; not where it only passes the header on."""
    name, value = record.headers[-1] if record.headers else ("", None)
    if name != STANDING_HEADER or value is None:
        return False
    try:
        said = decode(value, Standing)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return False  # an application's own header of that name
    return TopicPartition(said.topic, said.partition) == tp and said.region != region


# ---------------------------------------------------------------- what a plan says


def findings(
    recovery: Recovery,
    region: Region,
    execution: str,
    tails: Iterable[Held],
    cleanups: Mapping[str, Sequence[str]],
    behind: Mapping[GroupId, int],
) -> Iterator[FindingView]:
    """Yield what a failback does with the logs that hold tails, where that is more than leaving them or making them anew.

    Args:
        cleanups: ``cleanup.policy`` in the two regions, by topic.
        behind: by group, how many offsets below tails that are purged it has not read yet.
    """
    found = list(tails)
    for topic in sorted({one.tp.topic for one in found}):
        policy = recovery.old_log_of(topic)
        ours = [one for one in found if one.tp.topic == topic]
        if why := unfit(policy, topic, cleanups.get(topic, ())):
            yield FindingView("OLD_LOG_REFUSED", "error", f"old_log: {policy}: {why}", topic)
        elif policy == "purge":
            places = ", ".join(f"{one.tp.partition} up to {one.end}" for one in ours)
            below = sum(max(0, one.begin - one.start) for one in ours)
            message = (
                f"{topic} of {region}: {sum(one.end - one.start for one in ours):,} offsets are deleted (partitions {places}), "
                f"{below:,} of them below the tails of {sum(one.records for one in ours):,} records: whoever begins at a log's start there "
                f"reads none of them, and they are only in the other region, while its retention keeps them"
            )
            yield FindingView("TAIL_PURGED", "warning", message, execution)
        elif policy == "supersede":
            message = (
                f"{topic} of {region}: behind the tails of {sum(one.records for one in ours):,} records it is written once more what "
                f"stands of their keys, where no later record speaks of them: at most as many records"
            )
            yield FindingView("TAIL_SUPERSEDED", "info", message, execution)
    if behind:
        yield FindingView("TAIL_UNREAD", "warning", f"{unread(behind, region)}: the failback waits for them before it purges", execution)


def unread(behind: Mapping[GroupId, int], region: Region) -> str:
    """Return which groups have not read what a purge would delete."""
    names = ", ".join(f"{group} ({offsets:,} offsets)" for group, offsets in sorted(behind.items()))
    return f"not past the place where {region} was left, so they would skip what is deleted there: {names}"

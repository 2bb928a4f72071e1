"""Proves a checkpoint again, by reading both sides around it anew. What was read before counts for nothing here."""

from __future__ import annotations

from collections.abc import Iterator

from mrc.agent.pairs import Pair
from mrc.core.errors import MrcError
from mrc.core.model import Offset, Seen, TopicPartition
from mrc.core.translation.sight import Sight, Sights
from mrc.core.views import CheckpointView, VerifiedView
from mrc.ports import Cluster

_POLLS_MAX = 25
_POLL_S = 0.2

COMPACTED_AWAY_MAX = 1_000
"""How many records of the one side may lie before the other side's next one, where compaction took the rest away."""


def verify(here: Cluster, there: Cluster, pair: Pair, sights: Sights, checkpoint: CheckpointView) -> VerifiedView:
    """Read both sides around a checkpoint and compare the records.

    ``agrees``: the next records are the same, or where the source has none, those right before are; or one side's next record
    follows on the other behind what compaction has left there. ``unproved``: there is nothing exact to compare.
    ``disagrees``: an exact answer that the logs contradict.

    Args:
        here, there: the source's and the target's cluster.
    """
    if checkpoint.translation.type != "exact":
        return VerifiedView(checkpoint, "unproved", f"the answer is {checkpoint.translation.type}")
    source_offset, target_offset = Offset(checkpoint.source_offset), Offset(checkpoint.translation.offset)
    next_here = next(visible_from(here, pair.source, source_offset, sights.source, 1), None)
    next_there = next(visible_from(there, pair.target, target_offset, sights.target, 1), None)
    if next_here is not None and next_there is not None:
        if next_here.fingerprint == next_there.fingerprint:
            return VerifiedView(checkpoint, "agrees", f"source record {next_here.offset} is target record {next_there.offset}")
        further = _further(here, there, pair, sights, next_here, next_there)
        if further:
            return VerifiedView(checkpoint, "agrees", further)
    last_here = here.last_records([pair.source], {pair.source: source_offset}, sights.source)[pair.source]
    last_there = there.last_records([pair.target], {pair.target: target_offset}, sights.target)[pair.target]
    if last_here is not None and last_there is not None and last_here.fingerprint == last_there.fingerprint:
        return VerifiedView(checkpoint, "agrees", f"right behind source record {last_here.offset}, target record {last_there.offset}")
    if last_here is None and last_there is None:
        return VerifiedView(checkpoint, "agrees", "both logs hold nothing before it")
    if any(source_offset >= here_ and target_offset == there_ for here_, there_ in pair.known.anchors):
        return VerifiedView(checkpoint, "agrees", "behind the tail that a failover left")
    return VerifiedView(checkpoint, "disagrees", f"source {next_here} after {last_here}; target {next_there} after {last_there}")


def _further(here: Cluster, there: Cluster, pair: Pair, sights: Sights, next_here: Seen, next_there: Seen) -> str:
    """Return where one side's next record follows on the other, for topics that are compacted; empty where it does not."""
    if pair.compacted:
        for seen in visible_from(there, pair.target, Offset(next_there.offset), sights.target, COMPACTED_AWAY_MAX):
            if seen.fingerprint == next_here.fingerprint:
                return f"source record {next_here.offset} is target record {seen.offset}; what lies before was compacted away in the source"
        for seen in visible_from(here, pair.source, Offset(next_here.offset), sights.source, COMPACTED_AWAY_MAX):
            if seen.fingerprint == next_there.fingerprint:
                return (
                    f"target record {next_there.offset} is source record {seen.offset}; what lies before was compacted away in the target"
                )
    return ""


def visible_from(cluster: Cluster, tp: TopicPartition, offset: Offset, sight: Sight, limit: int) -> Iterator[Seen]:
    """Yield the first ``limit`` visible records at or after a position, fewer where the log ends.

    Raises:
        MrcError: ``CLUSTER_UNREACHABLE`` when they could not be read in time.
    """
    end = cluster.ends([tp], sight.isolation)[tp]
    if offset >= end:
        return
    reader = cluster.reader({tp: offset}, sight)
    found = silent = 0
    try:
        while silent < _POLLS_MAX:
            batches = reader.poll(limit, _POLL_S)
            silent = 0 if any(batch.records for batch in batches) else silent + 1
            for batch in batches:
                for seen in batch.records[: limit - found]:
                    found += 1
                    yield seen
                if found == limit or batch.at_end or batch.position >= end:
                    return
        raise MrcError("CLUSTER_UNREACHABLE", "the records could not be read in time", where=str(tp), retryable=True)
    finally:
        reader.close()

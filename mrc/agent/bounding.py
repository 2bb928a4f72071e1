"""What a failover leaves behind in the region that died is bounded: where the mirror ends, and which record it ends with.

The entry of the divergence ledger that says so is made exact when the region is back (`mrc.agent.flowing.list_divergence`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from mrc.agent import flowing, old_log
from mrc.agent.work import Work
from mrc.core.failover.ledger import Ledger, Tail
from mrc.core.model import Offset, TopicPartition
from mrc.ports import Seen

Tails = Mapping[TopicPartition, Sequence[Tail]]


def write(work: Work) -> None:
    """Write the execution's entry into the ledger. Raises world errors."""
    mirrored = work.positions.last_mirrored()  # first: a flow that goes on may copy more meanwhile
    mirrors = work.mirrors()
    target, sight = work.estate.clusters[work.plan.target], work.positions.sights.target
    ends = target.ends(list(mirrors.values()), "read_uncommitted")
    ledgers = work.estate.store.ledgers()
    own: dict[TopicPartition, list[Tail]] = {}
    for ledger, _ in ledgers:
        for tail in ledger.tails if (ledger.region, ledger.state) == (work.plan.target, "listed") else ():
            own.setdefault(TopicPartition(tail.topic, tail.partition), []).append(tail)
    superseded = old_log.may_be_superseded(work.estate, work.plan.target)
    last = _last_mirrored(work, ends, own, superseded)
    rows = flowing.last_rows(target, sight, last, _own_ends(work, target.starts(list(mirrors.values())), last, own, superseded))
    tails = []
    for tp, mirror in mirrors.items():
        seen = last[mirror]
        tails.append(
            Tail(
                topic=tp.topic,
                partition=tp.partition,
                mirror_end=ends[mirror],
                last_source=mirrored.get(tp, -1),
                last_fingerprint=seen.fingerprint if seen else 0,
                last_timestamp_ms=seen.timestamp_ms if seen else 0,
                window=rows[mirror],
            )
        )
    entry = Ledger(
        id=work.plan.id,
        region=work.plan.source,
        target=work.plan.target,
        execution=work.plan.id,
        at_ms=work.plan.made_at_ms,
        state="open",
        tails=tuple(tails),
        topic_ids=work.positions.source_topic_ids(),
        target_topic_ids=work.positions.target_topic_ids(),
    )
    version = next((version for ledger, version in ledgers if ledger.id == entry.id), None)
    work.estate.store.put_ledger(work.lead, entry, version)


def _own_ends(
    work: Work,
    starts: Mapping[TopicPartition, Offset],
    last: Mapping[TopicPartition, Seen | None],
    own: Tails,
    superseded: Collection[TopicPartition],
) -> dict[TopicPartition, Offset]:
    """Return where the target's last own tail before the mirror's last record ends, at least the log's start."""
    found = dict(starts)
    for tp, tails in own.items():
        for tail in tails:
            if (seen := last.get(tp)) is not None and tail.end <= seen.offset:
                found[tp] = Offset(max(found[tp], tail.end))
    for tp in superseded:
        if (seen := last.get(tp)) is not None:
            begin = Offset(max(found[tp], seen.offset - flowing.LOOK_BACK))
            behind = old_log.behind_superseding(work.estate, work.plan.target, tp, begin, Offset(seen.offset))
            found[tp] = Offset(max(found[tp], behind))
    return found


def _last_mirrored(
    work: Work, ends: Mapping[TopicPartition, Offset], own: Tails, superseded: Collection[TopicPartition]
) -> dict[TopicPartition, Seen | None]:
    """Return the last visible record of each mirror, passing over what earlier failovers left behind in the target itself.

    And over what was written behind that in its place: nobody has copied it there.
    """
    target, sight = work.estate.clusters[work.plan.target], work.positions.sights.target
    found: dict[TopicPartition, Seen | None] = {}
    below = dict(ends)
    while below:
        seen = target.last_records(list(below), below, sight)
        found |= seen
        below = {tp: bound for tp, one in seen.items() if one is not None and (bound := _bound(work, tp, one, own, superseded)) is not None}
    return found


def _bound(work: Work, tp: TopicPartition, seen: Seen, own: Tails, superseded: Collection[TopicPartition]) -> Offset | None:
    """Return below which offset a copy has to be looked for, where the record that was seen is none; else None."""
    for tail in own.get(tp, ()):
        if tail.begin <= seen.offset < tail.end:
            return Offset(tail.begin)
    return old_log.below_superseding(work.estate, work.plan.target, tp, Offset(seen.offset)) if tp in superseded else None

"""The last records that the source has to copy: the target must have them, and none may come behind them."""

from __future__ import annotations

import hashlib

from mrc.agent import fencing
from mrc.agent.active_record import records_of, same
from mrc.agent.work import Work
from mrc.core.errors import MrcError
from mrc.core.model import Offset, TopicPartition, encode
from mrc.ports import Seen


def drained(work: Work) -> str:
    """Wait until the mirror ends with the source's last record, on every partition."""
    target = work.estate.clusters[work.plan.target]
    behind: list[TopicPartition] = []
    names = work.estate.unit.counterparts(work.plan.source)
    last = {TopicPartition(names[tp.topic], tp.partition): seen for tp, seen in to_copy(work).items() if seen is not None}
    sight = work.estate.sights(work.forward).target

    def done() -> bool:
        tps = list(last)
        mirror = target.last_records(tps, target.ends(tps, "read_uncommitted"), sight)
        behind[:] = [tp for tp in tps if (seen := mirror[tp]) is None or seen.fingerprint != last[tp].fingerprint]
        return not behind

    work.wait(done, lambda: MrcError("EFFECT_TIMED_OUT", f"not drained: {', '.join(map(str, behind))}", where=str(work.forward)))
    return f"the mirror ends with the source's last record on {len(last)} partitions; nothing to copy on the others"


def to_copy(work: Work) -> dict[TopicPartition, Seen | None]:
    """Return the source's last visible record per partition, None where the flow has nothing to copy."""
    source = work.estate.clusters[work.plan.source]
    tps = work.estate.partitions(work.plan.source)
    ends = source.ends(tps, "read_uncommitted")
    if work.recent.tail is None or work.recent.tail[0] != ends:
        last, begins = source.last_records(tps, ends, work.estate.sights(work.forward).source), _begins(work)
        work.recent.tail = (
            ends,
            {tp: seen if seen is not None and seen.offset >= begins.get(tp, 0) else None for tp, seen in last.items()},
        )
    return work.recent.tail[1]


def _begins(work: Work) -> dict[TopicPartition, Offset]:
    """Return from where the forward flow copies; records before that came from the target, or were left by a failover."""
    found = work.estate.store.flow_start(work.forward)
    return found[0].offsets() if found is not None else {}


def source_ends(work: Work) -> str:
    """Return a digest of where the source's logs end: a flow that goes on has no last position to compare them with."""
    source = work.estate.clusters[work.plan.source]
    ends = source.ends(work.estate.partitions(work.plan.source), "read_uncommitted")
    return hashlib.sha256(encode(sorted((tp.topic, tp.partition, end) for tp, end in ends.items()))).hexdigest()[:16]


def require_nothing_new(work: Work) -> None:
    """Prove the source's fence once more, and that nothing got past it since the flow was stopped.

    Nobody writes in the source now, MirrorMaker neither, so its log must stand still and no transaction be open.
    """
    began_s = work.estate.clock.monotonic_s()
    record, _ = work.estate.require_record()
    if not same(record, records_of(work.plan)[2]):
        # Opened already, by this effect's first try: the reversed flow may write in the source by now.
        fencing.require_fenced(work.estate, work.plan.source, still=work.flows_stay)
        return
    fencing.require_fenced(work.estate, work.plan.source, still=True)
    if work.flows_stay:
        if source_ends(work) != work.facts.get("source_ends"):
            raise MrcError("NOT_VERIFIED", "records have come in since its fence was proved", where=str(work.plan.source))
        work.recent.still_since_s = began_s
        return
    positions = work.estate.replicators[work.plan.target].positions(work.estate.connector(work.forward))
    new = [str(tp) for tp, seen in to_copy(work).items() if seen is not None and positions.get(tp) != seen.offset + 1]
    if new:
        raise MrcError("NOT_VERIFIED", f"records came into {', '.join(new)} behind the stopped flow", where=str(work.plan.source))
    work.recent.still_since_s = began_s

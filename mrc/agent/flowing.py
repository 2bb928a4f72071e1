"""Flows: the leading agent of a region keeps the flow into it as the active-region record wants it.

A flow that a move has given new starting positions is set to them while it is stopped, read back, noted as applied, and
only then resumed: nothing is copied twice, nothing left out. One actor only: stopping and setting a flow that somebody
else has just started would copy again what it has copied. A flow that a failover has blocked is stopped first, whatever the record wants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from mrc.agent import blocking, fencing, late
from mrc.agent.estate import Estate
from mrc.agent.store import LeaderCheck
from mrc.core.errors import MrcError
from mrc.core.failover.flows import FlowStart, differs, should_run
from mrc.core.failover.ledger import WINDOW, Ledger, Tail
from mrc.core.model import Flow, Offset, Seen, TopicPartition
from mrc.ports import Cluster, Replicator, Sight


def reconcile(estate: Estate, lead: LeaderCheck) -> str:
    """Bring the flow into this agent's region to the record; return what was done, empty when nothing was to do."""
    record, _ = estate.require_record()
    flow = estate.inbound(estate.region)
    replicator, connector = estate.replicators[estate.region], estate.connector(flow)
    if done := blocking.release(estate, lead):
        return done
    wanted = should_run(record, flow, estate.unit.policy)
    if wanted is None:
        return ""
    status = replicator.status(connector)
    if not wanted:
        if status.state in ("STOPPED", "ABSENT") or not status.tasks:
            return ""
        lead()
        replicator.stop(connector)
        return f"stopped {connector}"
    found = estate.store.flow_start(flow)
    if found is not None and found[0].held:
        if status.state == "STOPPED" or not status.tasks:
            return ""
        lead()
        replicator.stop(connector)
        return f"stopped {connector}: the logs that it copies into are made anew"
    if found is not None and not found[0].applied and found[0].epoch <= record.epoch:
        list_divergence(estate, lead)
        return _apply(estate, flow, found[0], found[1], lead)
    if status.state == "STOPPED":
        if told := differs(estate.unit.policy, replicator.settings(connector)):
            raise MrcError("POLICY_DIFFERS", told, where=connector)
        lead()
        replicator.resume(connector)
        return f"resumed {connector}"
    if estate.unit.policy == "identity":
        return ""
    noted = late.note_copied(estate, lead)
    if record.region != estate.region:
        list_divergence(estate, lead)
    return noted


def _apply(estate: Estate, flow: Flow, start: FlowStart, version: int, lead: LeaderCheck) -> str:
    """Stop, set, read back, note, resume. Killed anywhere before the note, it begins again and nothing has been copied.

    What is said to have stopped is not stopped again, for Connect counts each time as a change of its tasks and would fence them anew. It
    refuses positions itself where that is not so.
    """
    replicator, connector = estate.replicators[estate.region], estate.connector(flow)
    status = replicator.status(connector)
    if status.state != "STOPPED" or status.tasks:
        lead()
        replicator.stop(connector)
        if replicator.status(connector).tasks:
            return f"{connector} is stopping"
    positions = start.offsets()
    ends = estate.clusters[flow.source].ends(list(positions), "read_uncommitted")
    beyond = [str(tp) for tp, offset in positions.items() if offset > ends[tp]]
    if beyond:
        # Connect would answer 200 and then copy everything again.
        raise MrcError("NOT_VERIFIED", f"the flow would start beyond the end of {', '.join(beyond)}", where=connector)
    lead()
    set_positions(replicator, connector, positions)
    estate.store.put_flow_start(lead, flow, msgspec.structs.replace(start, applied=True), version)
    lead()
    replicator.resume(connector)
    return f"{connector} starts at the recorded ends"


def runs(estate: Estate, flow: Flow, *, set_first: bool) -> bool:
    """Whether a flow runs with all its tasks; with ``set_first`` from the positions that a move has recorded. Raises world errors."""
    found = estate.store.flow_start(flow)
    if set_first and (found is None or not found[0].applied):
        return False
    return estate.replicators[flow.target].status(estate.connector(flow)).tasks_run


def set_positions(replicator: Replicator, connector: str, positions: Mapping[TopicPartition, Offset]) -> None:
    """Set where a STOPPED connector starts, and read it back: Connect takes anything with a 200. Raises ``NOT_VERIFIED``."""
    replicator.set_positions(connector, positions)
    back = replicator.positions(connector)
    wrong = [str(tp) for tp, offset in positions.items() if back.get(tp, 0) != offset]
    if wrong:
        raise MrcError("NOT_VERIFIED", f"Connect has other positions for {', '.join(wrong)}", where=connector, retryable=True)


# ---------------------------------------------------------------- a region's return


def list_divergence(estate: Estate, lead: LeaderCheck, sight: Sight | None = None) -> None:
    """Complete this region's open ledger entries, once its fence is proved; the reversed flow appends behind the tails.

    Args:
        sight: how this region's log is looked at; where it is left out, both regions are asked.

    Raises:
        MrcError: world errors, retryable while the fence does not hold yet; as `list_tails`.
    """
    for ledger, version in estate.store.ledgers():
        if ledger.region == estate.region and ledger.state == "open":
            _require_still(estate, ledger)
            sight = sight or estate.sights(Flow(ledger.region, ledger.target)).source
            listed = list_tails(ledger, estate.clusters[estate.region], sight)
            if estate.unit.policy == "default":
                listed = msgspec.structs.replace(listed, state="late")
            estate.store.put_ledger(lead, listed, version)


def _require_still(estate: Estate, ledger: Ledger) -> None:
    """See that nobody writes in this region any more. A transaction whose end a shorter log has lost is told as what it is."""
    try:
        fencing.require_fenced(estate, estate.region, still=True)
    except MrcError as error:
        if error.code == "OPEN_TRANSACTION":
            cluster = estate.clusters[estate.region]
            _require_same_topics(ledger, cluster)
            ends = cluster.ends([TopicPartition(tail.topic, tail.partition) for tail in ledger.tails], "read_uncommitted")
            for tail in ledger.tails:
                _require_long_enough(tail, ends[TopicPartition(tail.topic, tail.partition)])
        raise


def list_tails(ledger: Ledger, cluster: Cluster, sight: Sight) -> Ledger:
    """Return the entry with every tail's range, read from the returned region's log (fenced, its ends stand still).

    Raises:
        MrcError: ``TOPIC_RECREATED`` or ``LOG_SHORTER`` when the last mirrored record is not there: the region came back with a topic
            made anew, or shorter than its mirror. The reversed flow is then not started, and nothing is changed.
    """
    _require_same_topics(ledger, cluster)
    tps = [TopicPartition(tail.topic, tail.partition) for tail in ledger.tails]
    starts, ends = cluster.starts(tps), cluster.ends(tps, "read_uncommitted")
    tails = tuple(_list_tail(tail, tp, cluster, sight, starts[tp], ends[tp]) for tail, tp in zip(ledger.tails, tps, strict=True))
    return msgspec.structs.replace(ledger, state="listed", tails=tails)


def _require_same_topics(ledger: Ledger, cluster: Cluster) -> None:
    found = cluster.topics(sorted(ledger.topic_ids))
    anew = [name for name, known in sorted(ledger.topic_ids.items()) if name not in found or found[name].topic_id != known]
    if anew:
        message = f"{', '.join(anew)} of {ledger.region} is not the topic that was mirrored: it was deleted or made anew meanwhile"
        raise MrcError("TOPIC_RECREATED", message, where=str(ledger.region))


def _require_long_enough(tail: Tail, end: Offset) -> None:
    if end <= tail.last_source:
        tp = TopicPartition(tail.topic, tail.partition)
        message = f"{tp} ends at {end}, and record {tail.last_source} of it was mirrored: the log is shorter than its mirror"
        raise MrcError("LOG_SHORTER", message, where=str(tp))


def _list_tail(tail: Tail, tp: TopicPartition, cluster: Cluster, sight: Sight, start: Offset, end: Offset) -> Tail:
    """Find the mirror's last record and count what comes after it.

    The last records of the mirror are looked for as a row, so that the place is exact also where identical records follow one another and
    where the position that is known trails. Where there is no such row (MirrorMaker has copied some twice) the last record alone is looked
    for from the position that is known, the earliest match taken: more may be listed than is divergent, never less.
    """
    _require_long_enough(tail, end)
    if start == end:
        return msgspec.structs.replace(tail, begin=start, end=end, records=0)
    known = Offset(max(start, tail.last_source))
    if tail.last_fingerprint == 0:
        begin = max(start, tail.last_source + 1)
        seen = _read(cluster, sight, {tp: (known, end)})[tp]
    else:
        seen = _read(cluster, sight, {tp: (Offset(max(start, known - LOOK_BACK)), end)})[tp]
        begin = _after(tail, seen, known)
    if begin < 0 and start > tail.last_source >= 0:
        begin = start  # what was mirrored last is so old that the region has deleted it
    if begin < 0:
        message = f"the last mirrored record of {tp} is not in the returned log: it is shorter than its mirror"
        raise MrcError("LOG_SHORTER", message, where=str(tp))
    return msgspec.structs.replace(tail, begin=begin, end=end, records=sum(one.offset >= begin for one in seen))


LOOK_BACK = 4 * WINDOW
"""Offsets looked back for a row: markers and gaps lie between its records."""


def _after(tail: Tail, seen: Sequence[Seen], known: Offset) -> int:
    """Return the offset behind the mirror's last record; -1 where it is not among ``seen``."""
    prints = [one.fingerprint for one in seen]
    row = list(tail.window)
    if len(row) > 1:
        places = [i + len(row) for i in range(len(prints) - len(row) + 1) if prints[i : i + len(row)] == row]
        if places and seen[places[0] - 1].offset >= tail.last_source:
            return seen[places[0] - 1].offset + 1
    return next((one.offset + 1 for one in seen if one.offset >= known and one.fingerprint == tail.last_fingerprint), -1)


def _read(cluster: Cluster, sight: Sight, spans: Mapping[TopicPartition, tuple[Offset, Offset]]) -> dict[TopicPartition, list[Seen]]:
    """Return the visible records in ``[begin, end)`` of each partition, read side by side."""
    found: dict[TopicPartition, list[Seen]] = {tp: [] for tp in spans}
    left = {tp: begin for tp, (begin, end) in spans.items() if begin < end}
    if not left:
        return found
    reader = cluster.reader(left, sight)
    try:
        while left:
            batches = reader.poll(10_000, 5.0)
            if not batches:
                tp, position = next(iter(left.items()))
                raise MrcError("CLUSTER_UNREACHABLE", f"reading {tp} stands still at {position}", where=str(tp), retryable=True)
            for batch in (one for one in batches if one.tp in left):
                end = spans[batch.tp][1]
                found[batch.tp] += [one for one in batch.records if one.offset < end]
                left[batch.tp] = batch.position
                if batch.position >= end:
                    reader.pause([batch.tp])
                    del left[batch.tp]
    finally:
        reader.close()
    return found


def last_rows(
    cluster: Cluster, sight: Sight, last: Mapping[TopicPartition, Seen | None], begins: Mapping[TopicPartition, Offset]
) -> dict[TopicPartition, tuple[int, ...]]:
    """Return, per partition, the fingerprints of the last visible records from its begin up to ``last``, at most `WINDOW`."""
    spans = {
        tp: (Offset(max(begins[tp], one.offset + 1 - LOOK_BACK)), Offset(one.offset + 1)) if one else (Offset(0), Offset(0))
        for tp, one in last.items()
    }
    return {tp: tuple(one.fingerprint for one in seen[-WINDOW:]) for tp, seen in _read(cluster, sight, spans).items()}

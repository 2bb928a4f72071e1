"""Flows: the leading agent of a region keeps the flow into it as the active-region record wants it.

A flow that a move has given new starting positions is set to them while it is stopped, read back, noted as applied, and
only then resumed: nothing is copied twice, nothing left out. One actor only: stopping and setting a flow that somebody
else has just started would copy again what it has copied. A flow that a failover has blocked is stopped first, whatever the record wants.
"""

from __future__ import annotations

import msgspec

from mrc.agent import blocking, fencing, late
from mrc.agent.estate import Estate
from mrc.agent.store import LeaderCheck
from mrc.core.errors import MrcError
from mrc.core.failover.flows import FlowStart, differs, should_run
from mrc.core.failover.ledger import Ledger, Tail
from mrc.core.model import Flow, Offset, TopicPartition
from mrc.ports import Cluster, Sight


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
    """Stop, set, read back, note, resume. Killed anywhere before the note, it begins again and nothing has been copied."""
    replicator, connector = estate.replicators[estate.region], estate.connector(flow)
    lead()
    replicator.stop(connector)
    if replicator.status(connector).tasks:
        return f"{connector} is stopping"
    positions = {TopicPartition(topic, p): offset for topic, offsets in start.positions.items() for p, offset in enumerate(offsets)}
    ends = estate.clusters[flow.source].ends(list(positions), "read_uncommitted")
    beyond = [str(tp) for tp, offset in positions.items() if offset > ends[tp]]
    if beyond:
        # Connect would answer 200 and then copy everything again.
        raise MrcError("NOT_VERIFIED", f"the flow would start beyond the end of {', '.join(beyond)}", where=connector)
    lead()
    replicator.set_positions(connector, positions)
    back = replicator.positions(connector)
    wrong = [str(tp) for tp, offset in positions.items() if back.get(tp, 0) != offset]
    if wrong:
        raise MrcError("NOT_VERIFIED", f"Connect has other positions for {', '.join(wrong)}", where=connector, retryable=True)
    estate.store.put_flow_start(lead, flow, msgspec.structs.replace(start, applied=True), version)
    lead()
    replicator.resume(connector)
    return f"{connector} starts at the recorded ends"


# ---------------------------------------------------------------- a region's return


def list_divergence(estate: Estate, lead: LeaderCheck, sight: Sight | None = None) -> None:
    """Complete this region's open ledger entries, once its fence is proved; the reversed flow appends behind the tails.

    Args:
        sight: how this region's log is looked at; where it is left out, both regions are asked.

    Raises:
        MrcError: world errors, retryable while the fence does not hold yet; ``NOT_VERIFIED`` as `list_tails`.
    """
    for ledger, version in estate.store.ledgers():
        if ledger.region == estate.region and ledger.state == "open":
            fencing.require_fenced(estate, estate.region, still=True)
            sight = sight or estate.sights(Flow(ledger.region, ledger.target)).source
            listed = list_tails(ledger, estate.clusters[estate.region], sight)
            if estate.unit.policy == "default":
                listed = msgspec.structs.replace(listed, state="late")
            estate.store.put_ledger(lead, listed, version)


def list_tails(ledger: Ledger, cluster: Cluster, sight: Sight) -> Ledger:
    """Return the entry with every tail's range, read from the returned region's log (fenced, its ends stand still).

    Raises:
        MrcError: ``NOT_VERIFIED`` when the last mirrored record is not there: the region came back shorter than its
            mirror, or with a re-created topic. The reversed flow is then not started.
    """
    tps = [TopicPartition(tail.topic, tail.partition) for tail in ledger.tails]
    starts, ends = cluster.starts(tps), cluster.ends(tps, "read_uncommitted")
    tails = tuple(_list_tail(tail, tp, cluster, sight, starts[tp], ends[tp]) for tail, tp in zip(ledger.tails, tps, strict=True))
    return msgspec.structs.replace(ledger, state="listed", tails=tails)


def _list_tail(tail: Tail, tp: TopicPartition, cluster: Cluster, sight: Sight, start: Offset, end: Offset) -> Tail:
    """Read from the last record that is known to be mirrored to the end; count what comes after the mirror's last one.

    Where identical records follow one another the earliest match is taken: more may be listed than is divergent, never less.
    """
    if end <= tail.last_source:
        message = (
            f"{tp} ends at {end}, and record {tail.last_source} of it was mirrored: the log is shorter than its mirror, or was made anew"
        )
        raise MrcError("NOT_VERIFIED", message, where=str(tp))
    if start == end:
        return msgspec.structs.replace(tail, begin=start, end=end, records=0)
    begin = max(start, tail.last_source + 1) if tail.last_fingerprint == 0 else -1
    records = 0
    position = Offset(max(start, tail.last_source))
    reader = cluster.reader({tp: position}, sight)
    try:
        while position < end:
            batches = reader.poll(10_000, 5.0)
            if not batches:
                raise MrcError("CLUSTER_UNREACHABLE", f"reading {tp} stands still at {position}", where=str(tp), retryable=True)
            for batch in batches:
                position = batch.position
                for seen in batch.records:
                    if begin < 0 and seen.fingerprint == tail.last_fingerprint:
                        begin, records = seen.offset + 1, 0
                    else:
                        records += seen.offset >= begin
    finally:
        reader.close()
    if begin < 0 and start > tail.last_source >= 0:
        begin = start  # what was mirrored last is so old that the region has deleted it
    if begin < 0:
        message = f"the last mirrored record of {tp} is not in the returned log: it is shorter than its mirror, or was made anew"
        raise MrcError("NOT_VERIFIED", message, where=str(tp))
    return msgspec.structs.replace(tail, begin=begin, end=end, records=records)

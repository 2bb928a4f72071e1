"""The flow of a move is turned: the forward one stops, the logs' ends are recorded, the reversed one goes on from there.

Under the default policy both flows go on, and only what a failover leaves behind is recorded.
"""

from __future__ import annotations

from mrc.agent import blocking, bounding, draining, fencing, flowing, renewing
from mrc.agent.active_record import records_of, same
from mrc.agent.work import Work
from mrc.core.errors import MrcError
from mrc.core.failover.flows import FlowStart
from mrc.core.model import Epoch, TopicPartition

_STAYS = "both flows go on: under the default policy a move stops and turns none"


def stop_flow(work: Work) -> dict[str, str]:
    """Stop the forward flow; where Connect is down, a failover blocks its writes instead."""
    if work.flows_stay:
        return {}
    if work.plan.kind == "failover":
        renewing.end_left(work)
    work.lead()
    try:
        work.estate.replicators[work.plan.target].stop(work.estate.connector(work.forward))
    except MrcError as error:
        if work.plan.kind != "failover" or error.code != "CONNECT_UNREACHABLE":
            raise
        blocking.begin(work.estate, work.plan.target, work.plan.id, work.lead)
        fencing.reconcile_at_once(work.estate, work.plan.target, work.lead)
        return {"blocked": ",".join(work.estate.unit.replicators)}
    return {}


def flow_stopped(work: Work) -> str:
    """See that the flow has no tasks and has copied everything, or that its writes are refused."""
    try:
        return _without_tasks(work)
    except MrcError as error:
        if error.code != "CONNECT_UNREACHABLE" or "blocked" not in work.facts:
            raise
    record, _ = work.estate.require_record()
    # Once the target is open its applications write there.
    opened = same(record, records_of(work.plan)[3])
    return blocking.require(work.estate, work.plan.target, still=not opened, deadline_s=work.deadline_s)


def _without_tasks(work: Work) -> str:
    """Gate on the tasks, not on the connector's state, which may say RUNNING for a minute when its source is dead."""
    if work.flows_stay:
        return _STAYS
    replicator, connector = work.estate.replicators[work.plan.target], work.estate.connector(work.forward)
    work.wait(
        lambda: not replicator.status(connector).tasks,
        lambda: MrcError(
            "EFFECT_TIMED_OUT", f"tasks of {connector} are still there: {replicator.status(connector).tasks}", where=connector
        ),
    )
    record, _ = work.estate.require_record()
    if work.plan.kind == "failover" or record.region != work.plan.source:
        return f"{connector} has no tasks"  # the source cannot be read, or writes of the reversed flow are in it by now
    last, positions = draining.to_copy(work), replicator.positions(connector)
    short = [tp for tp, seen in last.items() if seen is not None and positions.get(tp) != seen.offset + 1]
    if short:
        raise MrcError("NOT_VERIFIED", f"{connector} stopped before the source's end: {', '.join(map(str, short))}", where=connector)
    return f"{connector} has no tasks; its last positions are the source's last visible records"


def resume_flow(work: Work) -> str:
    """Let the forward flow run again, where it is not blocked, and wait until it does."""
    if work.flows_stay:
        return _STAYS
    replicator, connector = work.estate.replicators[work.plan.target], work.estate.connector(work.forward)
    if blocking.stands(work.estate, work.plan.target):
        return f"{connector} stays blocked until Connect of {work.plan.target} has stopped it; then its leading agent lets it run again"
    work.lead()
    try:
        replicator.resume(connector)
    except MrcError as error:
        if error.code != "CONNECT_UNREACHABLE":
            raise
        return f"{connector} is let run by the leading agent of {work.plan.target}, when Connect answers there"

    work.wait(
        lambda: replicator.status(connector).tasks_run,
        lambda: MrcError("NOT_VERIFIED", f"{connector} does not run: {replicator.status(connector)}", where=connector),
    )
    return f"{connector} runs again"


def record_ends(work: Work) -> dict[str, str]:
    """Record where the reversed flow starts, and what a failover leaves behind."""
    if not work.flows_stay:
        _record_start(work)
    if work.flows_stay or work.plan.kind == "failover":
        _list_own(work)
    if work.plan.kind == "failover":
        bounding.write(work)
        return {}
    return {"source_ends": draining.source_ends(work)} if work.flows_stay else {}


def _record_start(work: Work) -> None:
    """Note where the reversed flow starts."""
    target, store = work.estate.clusters[work.plan.target], work.estate.store
    tps = work.estate.partitions(work.plan.target)
    ends = target.ends(tps, "read_uncommitted")
    positions = {t: tuple(ends[tp] for tp in tps if tp.topic == t) for t in work.estate.unit.topics}
    start = FlowStart(epoch=Epoch(work.plan.epoch + 1), positions=positions)
    found = store.flow_start(work.forward.reversed)
    if found is None or found[0] != start:
        store.put_flow_start(work.lead, work.forward.reversed, start, found[1] if found else None)


def _list_own(work: Work) -> None:
    """List what an earlier failover left in the target, before it is opened and takes more."""
    try:
        # A target that is failed back to so soon that its own tails were not listed yet: they are no copies of the source's records.
        flowing.list_divergence(work.estate, work.lead, work.positions.sights.target)
    except MrcError as error:
        if error.retryable or work.plan.planned:
            raise
        # Its log came back shorter than its mirror. That stays in its own entry, and must not keep the last region from being opened.


def ends_recorded(work: Work) -> str:
    """The target is fenced and its flow stopped: what was recorded must still be the logs' ends, transactions over."""
    if work.flows_stay:
        written = work.plan.kind == "failover" and [one for one, _ in work.estate.store.ledgers() if one.id == work.plan.id]
        if work.plan.kind == "failover" and not written:
            raise MrcError("NOT_VERIFIED", "the ledger is not written", where=work.plan.id)
        return f"{_STAYS}{'; the ledger is written' if written else ''}"
    target = work.estate.clusters[work.plan.target]
    tps = work.estate.partitions(work.plan.target)
    found = work.estate.store.flow_start(work.forward.reversed)
    if found is None:
        raise MrcError("NOT_VERIFIED", "the ends are not recorded", where=str(work.forward.reversed))
    ends = target.ends(tps, "read_uncommitted")
    moved = [tp for tp in tps if found[0].positions[tp.topic][tp.partition] != ends[tp]]
    if moved:
        raise MrcError("NOT_VERIFIED", f"the target's log moves: {', '.join(map(str, moved))}", where=str(work.plan.target))
    # What MirrorMaker's last task has left open ends by itself, when its time-out has passed.
    open_on: list[TopicPartition] = []

    def over() -> bool:
        stable = target.ends(tps, "read_committed")
        open_on[:] = [tp for tp in tps if stable[tp] < ends[tp]]
        return not open_on

    work.wait(
        over, lambda: MrcError("OPEN_TRANSACTION", f"a transaction is open on {', '.join(map(str, open_on))}", where=work.plan.target)
    )
    return f"ends of {len(tps)} partitions, {sum(ends.values())} offsets in all"


def forget_ends(work: Work) -> str:
    """Take back what was recorded, unless the reversed flow has begun by it."""
    found = work.estate.store.flow_start(work.forward.reversed)
    if found is not None and not found[0].applied and found[0].epoch == work.plan.epoch + 1:
        work.estate.store.forget_flow_start(work.lead, work.forward.reversed, found[1])
    for ledger, version in work.estate.store.ledgers():
        if ledger.id == work.plan.id:
            work.estate.store.forget_ledger(work.lead, ledger, version)
    return "forgotten"


def flow_reversed(work: Work) -> str:
    """The source's own leader starts the flow into its region (`mrc.agent.flowing`); this waits for the evidence."""
    flow, estate = work.forward.reversed, work.estate
    connector = estate.connector(flow)

    def done() -> bool:
        return flowing.runs(estate, flow, set_first=not work.flows_stay)

    message = f"{flow} does not run yet; the leading agent of {flow.target} starts it"
    work.wait(done, lambda: MrcError("NOT_VERIFIED", message, where=connector))
    return f"{connector} runs{'' if work.flows_stay else ' from the recorded ends'}"

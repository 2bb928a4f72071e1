"""The first part of a failback: the region returns, what it alone has is recovered and accounted for, its old log is settled.

The second part is a switchover. A failback is executed in the region to which it leads, so the flow into it and its log are this
agent's own; what it recovers it writes in the source, which is open all the while. Every act is noted before or with itself: see
`mrc.agent.recovery`, and for a log that is made anew `mrc.core.failover.flows.FlowStart`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import msgspec

from mrc.agent import fencing, flowing
from mrc.agent.recovery import Progress, Recovery, pending, recovered_tps
from mrc.core.errors import MrcError
from mrc.core.failover.divergence import Exported
from mrc.core.failover.findings import findings, spelt
from mrc.core.failover.flows import FlowStart, OldTopic
from mrc.core.failover.ledger import Ledger
from mrc.core.model import Offset

if TYPE_CHECKING:
    from mrc.agent.steps import Work

OLD_LOGS = ("keep", "recreate")
"""Policies for the old log that this version carries out."""

_SHAPE = (
    "cleanup.policy",
    "compression.type",
    "delete.retention.ms",
    "max.compaction.lag.ms",
    "max.message.bytes",
    "message.timestamp.after.max.ms",
    "message.timestamp.before.max.ms",
    "message.timestamp.type",
    "min.cleanable.dirty.ratio",
    "min.compaction.lag.ms",
    "min.insync.replicas",
    "retention.bytes",
    "retention.ms",
    "segment.bytes",
    "segment.ms",
    "unclean.leader.election.enable",
)
"""Settings that a topic keeps when it is made anew: those that say what it takes, keeps and gives up."""


def _wait_until(work: Work, require: Callable[[], object], *, every_s: float = 0.05) -> None:
    """Return as soon as ``require`` raises nothing; at the step's deadline raise what it did last."""
    last: list[MrcError] = []

    def done() -> bool:
        try:
            require()
        except MrcError as error:
            if error.kind == "bug":
                raise
            last[:] = [error]
            return False
        return True

    work.wait(done, lambda: last[0], every_s=every_s)


# ---------------------------------------------------------------- the region returns


def region_back(work: Work) -> str:
    """Wait until the region answers and is seen to refuse applications; its own leading agent, this one, sets the fence."""
    estate, region = work.estate, work.plan.target

    def require_back() -> None:
        estate.partitions(region)
        estate.replicators[region].status(estate.connector(estate.inbound(region)))
        fencing.require_fenced(estate, region, still=False)

    _wait_until(work, require_back)
    return f"{region} answers and refuses applications"


def list_tails(work: Work) -> dict[str, str]:
    """List what is not listed yet; harmless beside the flow's own pump, which does the same."""
    flowing.list_divergence(work.estate, work.lead)
    return {}


def tails_listed(work: Work) -> str:
    """See that every entry is exact; name the records per entry."""
    ours = [ledger for ledger, _ in work.estate.store.ledgers() if ledger.region == work.plan.target]
    unlisted = [ledger.id for ledger in ours if ledger.state == "open"]
    if unlisted:
        raise MrcError("DIVERGENCE_OPEN", f"not listed yet: {', '.join(unlisted)}", where=str(work.plan.target), retryable=True)
    waiting = [ledger for ledger in ours if not ledger.settled]
    if not waiting:
        return f"nothing of {work.plan.target} waits to be recovered; entries so far: {len(ours)}"
    return "; ".join(f"{ledger.id}: {ledger.divergent} records on {len(recovered_tps(ledger))} partitions" for ledger in waiting)


# ---------------------------------------------------------------- recovery


def _every(work: Work, doing: Callable[[Recovery], Iterator[Progress]]) -> dict[str, str]:
    """Let every entry that waits go through a pass, as far as the step's time reaches; the next try goes on from there."""
    done = 0
    for ledger, _ in pending(work.estate, work.plan.target):
        for progress in doing(_recovery(work, ledger)):
            done = progress.done
            if _over(work):
                break
    return {f"{work.step.action}-records": str(done)} if done else {}


def _over(work: Work) -> bool:
    return work.interrupted() or work.estate.clock.monotonic_s() >= work.deadline_s


def _recovery(work: Work, ledger: Ledger) -> Recovery:
    return Recovery(work.estate, work.lead, ledger, lambda: _over(work))


def export(work: Work) -> dict[str, str]:
    """Export every entry; see `Recovery.export`."""
    return _every(work, Recovery.export)


def exported(work: Work) -> str:
    """See in the notes that every partition has been exported to its end."""
    total = 0
    for ledger, _ in pending(work.estate, work.plan.target):
        notes = _recovery(work, ledger).notes()
        for tp, tail in recovered_tps(ledger).items():
            came = notes.exported.get(tp, Exported(tail.begin, 0))
            if came.records != tail.records:
                message = f"{tp}: {came.records} of {tail.records} records are exported"
                raise MrcError("NOT_EXPORTED", message, where=ledger.id, retryable=True)
            total += came.records
    return f"{total} records stand in their recovered topics in {work.plan.source}"


def resolve(work: Work) -> dict[str, str]:
    """Resolve every entry; see `Recovery.resolve`."""
    return _every(work, Recovery.resolve)


def resolved(work: Work) -> str:
    """See in the notes that every record has a fate."""
    said: list[str] = []
    for ledger, _ in pending(work.estate, work.plan.target):
        fates = [one.fate for one in _recovery(work, ledger).notes().fates.values()]
        if len(fates) != ledger.divergent:
            message = f"{len(fates)} of {ledger.divergent} records have a fate"
            raise MrcError("NOT_VERIFIED", message, where=ledger.id, retryable=True)
        counts = ", ".join(f"{fates.count(name)} {name}" for name in ("emitted", "superseded", "quarantined"))
        said.append(f"{ledger.id}: {counts}")
    return "; ".join(said) or "nothing to resolve"


def account(work: Work) -> dict[str, str]:
    """Count anew, and write the sums into the ledger. Raises ``SUMS_DIFFER``."""
    for ledger, version in pending(work.estate, work.plan.target):
        accounts = _recovery(work, ledger).account()
        work.estate.store.put_ledger(work.lead, msgspec.structs.replace(ledger, accounts=accounts), version)
    return {}


def accounted(work: Work) -> str:
    """Read the sums back."""
    said: list[str] = []
    for ledger, _ in work.estate.store.ledgers():
        if ledger.region != work.plan.target:
            continue
        if not ledger.settled or not all(one.balanced for one in ledger.accounts):
            raise MrcError("SUMS_DIFFER", "not every divergent record is accounted for", where=ledger.id)
        if ledger.accounts:
            sums = [sum(getattr(one, name) for one in ledger.accounts) for name in ("divergent", "emitted", "superseded", "quarantined")]
            said.append(f"{ledger.id}: {sums[0]} = {sums[1]} re-emitted + {sums[2]} superseded + {sums[3]} quarantined")
    return "; ".join(said) or "nothing stayed behind"


# ---------------------------------------------------------------- the old log


def settle(work: Work) -> dict[str, str]:
    """Leave the old log as it is, or make the topics that hold tails anew and let the flow copy them from the beginning."""
    policy = work.estate.unit.recovery.old_log
    if policy not in OLD_LOGS:
        message = f"old_log: {policy} is not carried out by this version; allowed: {', '.join(OLD_LOGS)}"
        raise MrcError("POLICY_NOT_AVAILABLE", message, where="divergence.old_log")
    if policy == "recreate":
        _renew(work)
    return {}


def _renew(work: Work) -> None:
    """Hold the flow, note what the topics are like, delete and make them, let the flow begin anew. Killed anywhere, it goes on.

    What is deleted was accounted for by the step before, and nobody but the flow could have written behind it.
    """
    estate, region, store = work.estate, work.plan.target, work.estate.store
    flow = estate.inbound(region)
    found = store.flow_start(flow)
    if found is None or not found[0].held:
        tailed = {
            tail.topic
            for ledger, _ in store.ledgers()
            if ledger.region == region and ledger.state == "listed"
            for tail in ledger.tails
            if tail.records
        }
        if not tailed:
            return
        infos = estate.clusters[region].topics(sorted(tailed))
        shapes = {
            name: OldTopic(info.topic_id, len(info.leaders), {key: info.config[key] for key in _SHAPE if key in info.config})
            for name, info in infos.items()
        }
        unset = {} if found is None or found[0].applied else found[0].positions
        held = FlowStart(epoch=work.plan.epoch, positions=unset, held=True, renewing=shapes)
        store.put_flow_start(work.lead, flow, held, found[1] if found else None)
    _wait_for_stop(work)
    found = store.flow_start(flow)
    if found is None:
        raise MrcError("STALE_TERM", "the flow's start was forgotten meanwhile", where=str(flow))
    for name, shape in found[0].renewing.items():
        _make_anew(work, name, shape)
    for ledger, version in store.ledgers():
        if ledger.region == region and ledger.state == "listed":
            store.put_ledger(work.lead, msgspec.structs.replace(ledger, state="renewed"), version)
    positions = _begin_again(work, found[0])
    store.put_flow_start(work.lead, flow, FlowStart(epoch=found[0].epoch, positions=positions), found[1])


def _wait_for_stop(work: Work) -> None:
    replicator, connector = work.estate.replicators[work.plan.target], work.estate.connector(work.estate.inbound(work.plan.target))
    work.lead()
    replicator.stop(connector)
    work.wait(
        lambda: not replicator.status(connector).tasks,
        lambda: MrcError("EFFECT_TIMED_OUT", f"tasks of {connector} are still there", where=connector, retryable=True),
    )


def _make_anew(work: Work, name: str, shape: OldTopic) -> None:
    cluster = work.estate.clusters[work.plan.target]

    def topic_id() -> str:
        found = cluster.topics([name])
        return found[name].topic_id if name in found else ""

    late = MrcError("EFFECT_TIMED_OUT", f"{name} is not deleted and made anew yet", where=str(work.plan.target), retryable=True)
    if topic_id() == shape.topic_id:
        work.lead()
        cluster.delete_topic(name)
        work.wait(lambda: topic_id() != shape.topic_id, lambda: late)
    if not topic_id():
        work.lead()
        cluster.make_topic_like(name, shape.partitions, shape.config)
        work.wait(lambda: topic_id() not in ("", shape.topic_id), lambda: late)


def _begin_again(work: Work, start: FlowStart) -> dict[str, tuple[Offset, ...]]:
    """Return from where the flow copies: topics that were made anew from the beginning, others from where it stopped or was to begin."""
    estate, flow = work.estate, work.estate.inbound(work.plan.target)
    stored = estate.replicators[flow.target].positions(estate.connector(flow))
    found: dict[str, tuple[Offset, ...]] = {}
    for tp in estate.partitions(flow.source):
        unset = dict(enumerate(start.positions.get(tp.topic, ())))
        at = Offset(0) if tp.topic in start.renewing else unset.get(tp.partition, stored.get(tp, Offset(0)))
        found[tp.topic] = (*found.get(tp.topic, ()), at)
    return found


def finish(work: Work) -> str:
    """Make topics anew to the end where that was begun: their logs are gone, and the flow must not be held for ever."""
    found = work.estate.store.flow_start(work.estate.inbound(work.plan.target))
    if found is None or not found[0].held:
        return "no log was being made anew"
    _renew(work)
    return f"made anew to the end: {', '.join(sorted(found[0].renewing))}"


def settled(work: Work) -> str:
    """Wait until a switchover would find nothing against it: the flow runs, and both logs are read nearly to their ends."""
    _wait_until(work, lambda: _require_ready(work), every_s=0.2)
    policy = work.estate.unit.recovery.old_log
    return f"the old log is {'as it was' if policy == 'keep' else 'made anew'}; the flow into it runs"


def _require_ready(work: Work) -> None:
    found = work.estate.store.flow_start(work.forward)
    if found is not None and not found[0].applied:
        raise MrcError(
            "NOT_VERIFIED", f"{work.forward} does not start at its recorded positions yet", where=str(work.forward), retryable=True
        )
    inventory = msgspec.structs.replace(work.observe(), execution="")
    against = [
        one
        for one in findings(inventory, "switchover", work.plan.target, attested=False, restarted=work.plan.restarted)
        if one.severity == "error"
    ]
    against += work.positions.obstacles()
    if against:
        raise MrcError("PLAN_REFUSED", spelt(against), retryable=True)
    if behind := work.positions.behind():
        raise MrcError("CAPTURE_BEHIND", behind, where=str(work.forward), retryable=True)

"""The first part of a failback: the region returns, what it alone has is recovered and accounted for, its old log is settled.

The second part is a switchover. A failback is executed in the region to which it leads, so the flow into it and its log are this
agent's own; what it recovers it writes in the source, which is open all the while. Every act is noted before or with itself: see
`mrc.agent.recovery`, and for a log that is made anew `mrc.core.failover.flows.FlowStart`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import msgspec

from mrc.agent import fencing, flowing, renewing
from mrc.agent.recovery import Progress, Recovery, pending, recovered_tps
from mrc.core.errors import MrcError
from mrc.core.failover.divergence import Exported
from mrc.core.failover.findings import findings, spelt
from mrc.core.failover.ledger import Ledger

if TYPE_CHECKING:
    from mrc.agent.steps import Work

OLD_LOGS = ("keep", "recreate")
"""Policies for the old log that this version carries out."""


def wait_until(work: Work, require: Callable[[], object], *, every_s: float = 0.05) -> None:
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

    wait_until(work, require_back)
    return f"{region} answers and refuses applications"


def list_tails(work: Work) -> dict[str, str]:
    """List what is not listed yet; harmless beside the flow's own pump, which does the same."""
    flowing.list_divergence(work.estate, work.lead)
    waiting = [ledger.id for ledger, _ in pending(work.estate, work.plan.target)]
    return {"recovers": ",".join(waiting)} if waiting else {}


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
    renewing.let_go_left(work)
    if policy == "recreate":
        _renew(work)
    return {}


def _renew(work: Work) -> None:
    """Hold the flow, note what the topics are like, delete and make them, let the flow begin anew. Killed anywhere, it goes on.

    What is deleted was accounted for by the step before, and nobody but the flow could have written behind it.
    """
    region, store = work.plan.target, work.estate.store
    if renewing.held(work) is None:
        tailed = {
            tail.topic
            for ledger, _ in store.ledgers()
            if ledger.region == region and ledger.state == "listed"
            for tail in ledger.tails
            if tail.records
        }
        if not tailed:
            return
        infos = work.estate.clusters[region].topics(sorted(tailed))
        renewing.hold(work, {name: renewing.shape(info.topic_id, info) for name, info in infos.items()})
    renewing.wait_for_stop(work)
    found = renewing.held(work)
    if found is None:
        raise MrcError("STALE_TERM", "the flow's start was forgotten meanwhile", where=str(work.forward))
    for name, wanted in found[0].renewing.items():
        renewing.make_anew(work, name, wanted)
    renewing.begin_again(work, *found, found[0].renewing)


def finish(work: Work) -> str:
    """Make topics anew to the end where that was begun: their logs are gone, and the flow must not be held for ever."""
    found = renewing.held(work)
    if found is None:
        return "no log was being made anew"
    _renew(work)
    return f"made anew to the end: {', '.join(sorted(found[0].renewing))}"


def settled(work: Work) -> str:
    """Wait until a switchover would find nothing against it: the flow runs, and both logs are read nearly to their ends."""
    wait_until(work, lambda: require_ready(work), every_s=0.2)
    policy = work.estate.unit.recovery.old_log
    return f"the old log is {'as it was' if policy == 'keep' else 'made anew'}; the flow into it runs"


def require_ready(work: Work) -> None:
    """See that a switchover would find nothing against it. Raises ``NOT_VERIFIED``, ``PLAN_REFUSED``, ``CAPTURE_BEHIND``."""
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

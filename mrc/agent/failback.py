"""The first part of a failback: the region returns, what it alone has is recovered and accounted for, its old log is settled.

The second part is a switchover. A failback is executed in the region to which it leads, so the flow into it and its log are this
agent's own; what it recovers it writes in the source, which is open all the while. Every act is noted before or with itself: see
`mrc.agent.recovery`. What becomes of the old log: `mrc.agent.old_log`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from mrc.agent import fencing, flowing
from mrc.agent.recovery import Progress, Recovery, pending, recovered_tps
from mrc.agent.work import Work
from mrc.core.errors import MrcError
from mrc.core.failover.divergence import Exported
from mrc.core.failover.findings import findings, spelt
from mrc.core.failover.ledger import Ledger


def wait_until(work: Work, require: Callable[[], object], *, every_s: float = 0.05) -> None:
    """As `Work.wait_for`, for a region that returns: whatever it fails with meanwhile passes, but for a bug of mrc."""
    work.wait_for(require, passes=lambda error: error.kind != "bug", every_s=every_s)


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


# ---------------------------------------------------------------- ready to move


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

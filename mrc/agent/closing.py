"""The source is fenced, left by its groups and closed; and opened again where a move is undone."""

from __future__ import annotations

from mrc.agent import fencing
from mrc.agent.active_record import never_opened, records_of, reopened, require_same, same, set_record
from mrc.agent.work import Work
from mrc.core.errors import MrcError
from mrc.core.failover import fence
from mrc.core.model import GroupId


def fence_source(work: Work) -> dict[str, str]:
    """Begin the fence, once no leader refuses because of an earlier one: its refusals would be taken for proofs of this one.

    A move of kind fence does not wait for that: it is an emergency, and nothing is opened on the strength of its proof.
    """
    opened, draining, closed, target_open = records_of(work.plan)
    record, _ = work.estate.require_record()
    if same(record, opened) and work.plan.kind != "fence":
        work.wait_for(lambda: fencing.require_open(work.estate, work.plan.source))
    if not (same(record, closed) or same(record, target_open)):  # proved again later: the record has moved on
        set_record(work, (opened,), draining)
    fencing.reconcile_at_once(work.estate, work.plan.source, work.lead)
    return {}


def source_fenced(work: Work) -> str:
    """While draining nothing may be appended at all; later MM2 writes there, and refusals alone are the proof.

    ACLs reach the brokers asynchronously and open transactions end by themselves: both are waited for.
    """
    record, _ = work.estate.require_record()
    still = record.region == work.plan.source
    return work.wait_for(lambda: fencing.require_fenced(work.estate, work.plan.source, still=still)).detail


def open_source(work: Work) -> dict[str, str]:
    """Let the record say that the source is open, in a new epoch. Raises ``RECORD_UNEXPECTED``."""
    _, draining, _, _ = records_of(work.plan)
    set_record(work, (draining,), reopened(work.plan))
    return {}


def source_open(work: Work) -> str:
    """Wait until the source takes writes."""
    source = work.plan.source

    def writable() -> bool:
        # The source's own leader takes the refusals away; this agent leads elsewhere.
        return fencing.prove(work.estate, source, still=False).state in ("open", "unverified")

    work.wait(writable, lambda: MrcError("NOT_VERIFIED", f"{source} does not take writes yet", where=str(source)))
    return f"{source} is open again"


def reopen_source(work: Work) -> str:
    """Open the source again, where it was fenced at all; one that is dead is not waited for."""
    record, _ = work.estate.require_record()
    if same(record, records_of(work.plan)[0]):
        return f"{work.plan.source} was not fenced"
    open_source(work)
    try:
        return source_open(work)
    except MrcError as error:
        if error.code != "CLUSTER_UNREACHABLE":
            raise
        # A dead source must not keep the execution from ending: only then may somebody fail over.
        return f"the record says that {work.plan.source} is open; its leading agent takes the refusals away when the region answers"


def released(work: Work) -> str:
    """Wait until no group has members in the source."""
    source = work.estate.clusters[work.plan.source]
    members: dict[GroupId, int] = {}

    def done() -> bool:
        members.clear()
        members.update({g: info.members for g, info in source.groups(work.estate.unit.groups).items() if info.members})
        return not members

    def otherwise() -> MrcError:
        names = ", ".join(f"{group} ({n})" for group, n in members.items())
        return MrcError("GROUP_HAS_MEMBERS", f"groups still have members in {work.plan.source}: {names}", where=str(work.plan.source))

    work.wait(done, otherwise)
    return f"{len(work.estate.unit.groups)} groups have no members in {work.plan.source}"


def close_source(work: Work) -> dict[str, str]:
    """Let the record say that the target is closed: the source's groups lose READ. Raises ``RECORD_UNEXPECTED``."""
    opened, draining, closed, _ = records_of(work.plan)
    set_record(work, (draining,) if work.plan.planned else (opened, draining, never_opened(work.plan)), closed)
    if work.plan.planned:
        fencing.reconcile_at_once(work.estate, work.plan.source, work.lead)
    return {}


def source_closed(work: Work) -> str:
    """See the record, that nobody has come back, and every refusal."""
    record, _ = require_same(work, records_of(work.plan)[2])
    if work.plan.kind == "failover":
        return f"closed; {work.plan.source} is fenced at first contact"
    back = [g for g, info in work.estate.clusters[work.plan.source].groups(work.estate.unit.groups).items() if info.members]
    if back:
        raise MrcError("GROUP_HAS_MEMBERS", f"somebody has come back to {', '.join(back)}", where=str(work.plan.source), retryable=True)
    bindings = work.estate.clusters[work.plan.source].bindings()
    missing = fence.denies(work.estate.unit, bindings, fence.wanted(record, work.plan.source)) - bindings
    if missing:
        raise MrcError("NOT_VERIFIED", f"{len(missing)} refusals are not set yet", where=str(work.plan.source), retryable=True)
    return f"closed; the groups have lost READ in {work.plan.source}"


def unclose_source(work: Work) -> str:
    """Let the record say what it did before; after a failover that the source is open, in a new epoch."""
    opened, draining, closed, _ = records_of(work.plan)
    record, _ = work.estate.require_record()
    if work.plan.kind == "failover":
        if not same(record, opened):
            set_record(work, (closed, draining, never_opened(work.plan)), reopened(work.plan))
        return f"{work.plan.source} is the active region again"
    if same(record, closed):
        set_record(work, (closed,), draining)
    return "draining again"

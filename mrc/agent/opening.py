"""The target is opened: writers may write, clients are sent there, a canary record passes."""

from __future__ import annotations

from mrc.agent import custom_steps, draining, fencing, routing, turning
from mrc.agent.active_record import records_of, require_same, same, set_record
from mrc.agent.work import Work
from mrc.core.errors import MrcError
from mrc.core.failover import fence
from mrc.core.model import GroupId

CANARY_TOPIC = "mrc.canary.internal"

STILL_FOR_S = 2.0
"""How old the proof of the source's fence may be when the target is opened; an older one is made anew."""


def open_target(work: Work) -> dict[str, str]:
    """Open the target, once every application's right to write there has been computed from its ACLs."""
    _, _, closed, target_open = records_of(work.plan)
    estate, region = work.estate, work.plan.target
    bindings = estate.clusters[region].bindings()
    ours = frozenset(estate.store.fence(region)[0].bindings)
    blocked = fence.blocks_writers(estate.unit, bindings - ours)
    if blocked:
        raise MrcError("NOT_VERIFIED", f"ACLs would refuse {', '.join(blocked)} in {region}", where=str(region))
    if work.plan.planned and work.estate.clock.monotonic_s() - work.recent.still_since_s > STILL_FOR_S:
        draining.require_nothing_new(work)
    if "blocked" in work.facts and same(work.estate.require_record()[0], closed):
        turning.record_ends(work)  # anew: a broker that learnt of the block late may have let the flow write meanwhile
    set_record(work, (closed,), target_open)
    fencing.reconcile_at_once(work.estate, region, work.lead)
    return {}


def target_open(work: Work) -> str:
    """Wait until the target takes writes."""
    last: list[fencing.Proof] = []

    def done() -> bool:
        last[:] = [fencing.prove(work.estate, work.plan.target, still=False)]
        return last[0].state in ("open", "unverified")

    work.wait(
        done, lambda: MrcError("NOT_VERIFIED", f"{work.plan.target} does not take writes: {last[0].detail}", where=str(work.plan.target))
    )
    return f"epoch {work.plan.epoch + 1}; {last[0].detail}"


def route(work: Work) -> dict[str, str]:
    """Release the routes and run the routing command, once the record names the target.

    Raises:
        MrcError: ``PRODUCERS_CARRIED``, ``RECORD_UNEXPECTED``.
    """
    if work.estate.unit.carries_producers and not work.plan.restarted:
        message = (
            "nobody has attested that producers are started anew which the redirect would carry along: skip the step, or configure them"
        )
        raise MrcError("PRODUCERS_CARRIED", message, where="routing.producers")
    record, version = require_same(work, records_of(work.plan)[3])
    routing.release(work.estate, record, version, work.lead)
    if not work.estate.route:
        return {}
    facts = {
        "execution": work.plan.id,
        "kind": work.plan.kind,
        "source": work.plan.source,
        "target": work.plan.target,
        "epoch": str(work.plan.epoch + 1),
    }
    work.lead()
    return {"route": custom_steps.run(work, list(work.estate.route), facts)}


def routed(work: Work) -> str:
    """Every route leads to the target, read anew. The leader's own pump sets them too; whoever comes second finds it done."""
    left: list[str] = []
    last: list[MrcError] = []

    def done() -> bool:
        try:
            routing.reconcile(work.estate, work.lead)
            left[:] = routing.unset(work.estate, work.plan.target)
        except MrcError as error:
            if not error.code.startswith("ROUTE_"):
                raise
            last[:] = [error]
            return False
        last.clear()
        return not left

    work.wait(done, lambda: last[0] if last else MrcError("ROUTE_ELSEWHERE", "; ".join(left)), every_s=0.5)
    record, _ = work.estate.require_record()
    said = f"; the command said: {work.facts['route'] or 'nothing'}" if "route" in work.facts else ""
    led = "".join(f"; {route.name} leads to {work.plan.target}" for route in work.estate.routes)
    word = f"; {work.plan.actor} attests that producers are started anew" if work.estate.unit.carries_producers else ""
    return f"the record names {record.region}{said or ('' if led else '; no routing command is configured')}{led}{word}"


def canary(work: Work) -> dict[str, str]:
    """Write a record into mrc's own topic in the target."""
    target = work.estate.clusters[work.plan.target]
    work.lead()
    target.ensure_topic(CANARY_TOPIC, compacted=True)
    target.append(CANARY_TOPIC, [(work.plan.replication_group.encode(), work.plan.id.encode())])
    return {}


def canary_seen(work: Work) -> str:
    """Read it back, and wait until the groups that had members in the source have some here."""
    target = work.estate.clusters[work.plan.target]
    if target.load(CANARY_TOPIC).get(work.plan.replication_group.encode()) != work.plan.id.encode():
        raise MrcError("NOT_VERIFIED", "the canary record cannot be read back", where=str(work.plan.target))
    live = [GroupId(name) for name in work.facts.get("live_groups", "").split(",") if name]
    absent: list[GroupId] = []

    def joined() -> bool:
        absent[:] = [group for group, info in target.groups(live).items() if not info.members]
        return not absent

    work.wait(joined, lambda: MrcError("NOT_VERIFIED", f"groups have not joined in {work.plan.target}: {', '.join(absent)}"))
    return f"canary written and read; {len(live)} groups have members in {work.plan.target}"

"""A region that came back empty, or without its log, is made anew from the open one, until a switchover to it could begin.

Executed in the region that is rebuilt, which is fenced at rest all the while; the open one is only read. The flow into the region is held
before anything is deleted, and let go, from the beginning of everything, once topics, rights and the fence are proved
(`mrc.agent.renewing`). What is judged, and what of it needs a person's word: `mrc.core.failover.rebuild`.
"""

from __future__ import annotations

from mrc.agent import fencing, flowing, renewing
from mrc.agent.estate import Estate
from mrc.agent.failback import require_ready, wait_until
from mrc.agent.recovery import pending
from mrc.agent.work import Work
from mrc.core.errors import MrcError
from mrc.core.failover import fence, rebuild
from mrc.core.failover.findings import spelt
from mrc.core.failover.flows import FlowStart
from mrc.core.failover.rebuild import SeenTopic
from mrc.core.inventory import Binding
from mrc.core.model import GroupId, Offset, Region, TopicPartition
from mrc.core.views import FindingView

# ---------------------------------------------------------------- looking


def topics(estate: Estate, region: Region) -> tuple[SeenTopic, ...]:
    """Return the unit's topics as they are in ``region``, beside what they have to be like. Raises world errors."""
    names = estate.unit.topics
    source, target = estate.clusters[estate.unit.other(region)], estate.clusters[region]
    here, there = source.topics(names), target.topics(names)
    if missing := [name for name in names if name not in here]:
        raise MrcError("UNKNOWN_TOPIC", f"topic {missing[0]} does not exist", where=str(estate.unit.other(region)))
    tps = [TopicPartition(name, partition) for name, info in there.items() for partition in range(len(info.leaders))]
    starts, ends = target.starts(tps), target.ends(tps, "read_uncommitted")
    found = []
    for name in names:
        at = there.get(name)
        wanted = renewing.shape(at.topic_id if at else "", here[name])
        never = all(ends[tp] == 0 for tp in tps if tp.topic == name)
        fits = at is not None and never and renewing.shape(at.topic_id, at) == wanted
        found.append(SeenTopic(name, wanted, sum(ends[tp] - starts[tp] for tp in tps if tp.topic == name), fits))
    return tuple(found)


def findings(estate: Estate, region: Region, *, allow_data_loss: bool) -> tuple[FindingView, ...]:
    """Return what a rebuild of ``region`` would do, and what stands against it. Touches nothing. Raises world errors."""
    source = estate.unit.other(region)
    waiting = [ledger for ledger, _ in pending(estate, region)]
    there = estate.clusters[region].bindings()
    added = _lacking(estate, region, there)
    left_out = len(_lacking(estate, region, there, everywhere=False) - added)
    ours = frozenset(estate.store.fence(region)[0].bindings)
    return (
        *rebuild.findings(region, source, topics(estate, region), waiting, allow_data_loss=allow_data_loss),
        *rebuild.access(estate.unit, region, added, there - ours, left_out),
    )


def _lacking(estate: Estate, region: Region, there: frozenset[Binding], *, everywhere: bool = True) -> frozenset[Binding]:
    """Return the ACLs that ``region`` lacks; without ``everywhere`` also those that are for one host only."""
    source = estate.unit.other(region)
    ours = frozenset(estate.store.fence(source)[0].bindings)
    return rebuild.lacking(estate.unit, estate.clusters[source].bindings(everywhere=everywhere), there, ours)


# ---------------------------------------------------------------- the flow is held


def hold(work: Work) -> dict[str, str]:
    """Hold the flow into the region and note what is made; where it was noted, that stands: what was deleted by now is no more to be seen.

    Raises:
        MrcError: ``PLAN_REFUSED`` where records or topics are found that the plan has not named.
    """
    if "made" in work.facts and renewing.held(work) is not None:
        return {}
    renewing.let_go_left(work)
    region, plan = work.plan.target, work.plan
    seen = topics(work.estate, region)
    against = [one for one in findings(work.estate, region, allow_data_loss=plan.allow_data_loss) if one.severity == "error"]
    if against:
        raise MrcError("PLAN_REFUSED", spelt(against))
    unnamed = [name for name, id in rebuild.deletes(seen).items() if plan.deletes.get(name) != id]
    if unnamed:
        message = (
            f"{', '.join(unnamed)} of {region} would be deleted and the plan does not name them as they are now: abort, and plan again"
        )
        raise MrcError("PLAN_REFUSED", message, where=str(region))
    made = {one.name: one.wanted for one in seen if not one.fits}
    renewing.hold(work, made)
    return {"made": ", ".join(made) or "none"}


def held(work: Work) -> str:
    """See that the flow stands still."""
    renewing.wait_for_stop(work)
    return f"{work.forward} stands still; topics to be made in {work.plan.target}: {work.facts['made']}"


def let_go(work: Work) -> str:
    """Make the topics that were deleted, and let the flow go on as the record wants it."""
    found = renewing.held(work)
    if found is None:
        return "no flow is held"
    anew = renewing.let_go(work, *found)
    return f"{work.forward} is let go; made anew meanwhile: {', '.join(sorted(anew)) or 'none'}"


# ---------------------------------------------------------------- rights, topics


def copy_acls(work: Work) -> dict[str, str]:
    """Add the rights that the region lacks, each together with the fence's refusal."""
    estate, region = work.estate, work.plan.target
    for number in range(fencing.RACES):
        coming = _lacking(estate, region, estate.clusters[region].bindings())
        try:
            fencing.admit(estate, region, coming, work.lead)
        except MrcError as error:
            if error.code != "STALE_TERM" or number == fencing.RACES - 1:
                raise
            work.lead()
        else:
            return {"acls": str(len(coming))} if coming else {}
    return {}


def acls_copied(work: Work) -> str:
    """See every right in the region, and every refusal that the record wants against them; brokers learn of ACLs late."""
    estate, region = work.estate, work.plan.target
    missing: list[int] = []

    def seen() -> bool:
        there = estate.clusters[region].bindings()
        record, _ = estate.require_record()
        refusals = fence.denies(estate.unit, there, fence.wanted(record, region))
        missing[:] = [len(_lacking(estate, region, there)), len(refusals - there)]
        return not any(missing)

    def otherwise() -> MrcError:
        message = f"{missing[0]} ACLs of {work.plan.source} and {missing[1]} refusals of the fence are not in {region} yet"
        return MrcError("NOT_VERIFIED", message, where=str(region), retryable=True)

    work.wait(seen, otherwise, every_s=0.2)
    return f"{region} has every ACL of {work.plan.source} on the unit's topics and groups; added: {work.facts.get('acls', '0')}"


def make_topics(work: Work) -> dict[str, str]:
    """Delete what the plan names and is still there as it was noted, and make what is missing; then mrc's own topics.

    Raises:
        MrcError: ``TOPIC_NOT_EMPTY`` where records came in since the plan was made, and nobody has said that they may be lost.
    """
    (found, _), cluster = renewing.require_held(work), work.estate.clusters[work.plan.target]
    filled = [one.name for one in topics(work.estate, work.plan.target) if one.offsets and one.wanted.topic_id in _noted(found)]
    if filled and not work.plan.allow_data_loss:
        raise MrcError("TOPIC_NOT_EMPTY", f"records have come into {', '.join(filled)} meanwhile", where=str(work.plan.target))
    for name, wanted in found.renewing.items():
        renewing.make_anew(work, name, wanted)
    for name in (f"mrc.checkpoints.{work.plan.source}.internal", f"mrc.offset-map.{work.plan.source}.internal"):
        work.lead()
        cluster.ensure_topic(name, compacted=True)
    return {}


def _noted(start: FlowStart) -> set[str]:
    return {wanted.topic_id for wanted in start.renewing.values() if wanted.topic_id}


def topics_made(work: Work) -> str:
    """See every topic empty, and like the source's."""
    seen = topics(work.estate, work.plan.target)
    wrong = [one.name for one in seen if not one.fits]
    if wrong:
        message = f"{', '.join(wrong)} of {work.plan.target} is not empty, or unlike that of {work.plan.source}"
        raise MrcError("NOT_VERIFIED", message, where=str(work.plan.target), retryable=True)
    return f"{len(seen)} topics are empty and like those of {work.plan.source}; made: {work.facts['made']}"


# ---------------------------------------------------------------- copies and positions


def start_flow(work: Work) -> dict[str, str]:
    """Let the flow begin at the beginning of everything. Harmless once it has."""
    if (found := renewing.held(work)) is not None:
        renewing.begin_again(work, *found, work.estate.unit.topics)
    return {}


def flow_started(work: Work) -> str:
    """See the flow run from the beginning; the region's own pump sets and starts it."""
    flow, estate = work.forward, work.estate
    message = f"{flow} does not run from the beginning yet"
    work.wait(
        lambda: flowing.runs(estate, flow, set_first=True),
        lambda: MrcError("NOT_VERIFIED", message, where=estate.connector(flow), retryable=True),
        every_s=0.2,
    )
    lost = [ledger.id for ledger, _ in estate.store.ledgers() if (ledger.region, ledger.state) == (flow.target, "lost")]
    gone = f"; never accounted for, and gone: what failovers {', '.join(lost)} left behind" if lost else ""
    return f"{estate.connector(flow)} copies everything that {flow.source} holds, from the beginning{gone}"


def copies_seen(work: Work) -> str:
    """Wait until a switchover would find nothing against it."""
    wait_until(work, lambda: require_ready(work), every_s=0.2)
    starts = work.estate.clusters[work.plan.source].starts(work.estate.partitions(work.plan.source))
    kept = sum(starts.values())
    before = f"; the first {kept:,} offsets are in neither region any more" if kept else ""
    return f"a switchover to {work.plan.target} would find nothing against it{before}"


def _unplaced(work: Work) -> list[str]:
    """Return which groups have a position in the source and no safe one in the target, on which partition."""
    safe = work.positions.standby_positions()
    unit = work.estate.unit
    held = work.estate.clusters[work.plan.source].positions_of(unit.groups)
    return [
        f"{group} on {tp}"
        for group, positions in held.items()
        for tp in positions
        if tp.topic in unit.topics and tp not in safe.get(group, {})
    ]


def place_groups(work: Work) -> dict[str, str]:
    """Commit every group's safe position as soon as each has one. Raises ``NOT_VERIFIED``, ``GROUP_HAS_MEMBERS``."""
    target, unplaced = work.estate.clusters[work.plan.target], list[str]()

    def known() -> bool:
        unplaced[:] = _unplaced(work)
        return not unplaced

    work.wait(
        known,
        lambda: MrcError("NOT_VERIFIED", f"no safe position yet: {', '.join(unplaced[:5])}", where=str(work.forward), retryable=True),
        every_s=0.2,
    )
    with work.estate.committing:
        safe = work.positions.standby_positions()
        ends = target.ends(sorted({tp for positions in safe.values() for tp in positions}), "read_uncommitted")
        for group in work.estate.unit.groups:
            within = {tp: position for tp, position in safe.get(group, {}).items() if position.offset <= ends[tp]}
            if within:
                work.lead()
                target.commit_positions(group, within)
    return {}


def groups_placed(work: Work) -> str:
    """See that each group has a position in the target's log wherever it has one in the source."""
    unit = work.estate.unit
    source, target = work.estate.clusters[work.plan.source], work.estate.clusters[work.plan.target]
    held, there = source.positions_of(unit.groups), target.positions_of(unit.groups)
    ends = target.ends(work.estate.partitions(work.plan.target), "read_uncommitted")
    wrong, placed = list[str](), dict[GroupId, int]()
    for group, positions in held.items():
        for tp in (tp for tp in positions if tp in ends):
            at = there[group].get(tp)
            if at is None or not 0 <= at.offset <= Offset(ends[tp]):
                wrong.append(f"{group} on {tp}")
            placed[group] = placed.get(group, 0) + 1
    if wrong:
        raise MrcError("NOT_VERIFIED", f"not placed: {', '.join(wrong[:5])}", where=str(work.plan.target), retryable=True)
    return f"{sum(placed.values())} positions of {len(placed)} groups stand in {work.plan.target}"

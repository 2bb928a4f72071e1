"""What each action does to the world: ``do`` (may run twice), ``verify`` (from fresh observation), ``undo``.

Whether and when a step may run is not decided here but by `mrc.core.failover.execution`. Every act is preceded by
a check of the lease (`Work.lead`); every wait ends at the step's deadline or when a person has asked to abort.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from mrc.agent import blocking, bounding, custom_steps, failback, fencing, flowing, old_log, rebuilding, renewing, routing
from mrc.agent.leadership import leader_path
from mrc.agent.work import Step, Work
from mrc.core.errors import InvariantViolation, MrcError
from mrc.core.failover import fence
from mrc.core.failover.findings import findings, spelt
from mrc.core.failover.flows import FlowStart
from mrc.core.failover.plan import Plan
from mrc.core.inventory import Position
from mrc.core.model import ActiveRecord, Epoch, GroupId, Known, Offset, Region, TopicPartition, encode
from mrc.ports import Seen

CANARY_TOPIC = "mrc.canary.internal"

STILL_FOR_S = 2.0
"""How old the proof of the source's fence may be when the target is opened; an older one is made anew."""

COMMITTED_AT_ONCE = 25
"""Groups whose positions are committed between two looks at the lease."""


def _nothing(work: Work) -> dict[str, str]:
    return {}


# ---------------------------------------------------------------- the record


def _set_record(work: Work, allowed: tuple[ActiveRecord, ...], wanted: ActiveRecord) -> None:
    """Set the record to ``wanted`` from one of ``allowed`` (compared by region, state, epoch); harmless when it is so already."""
    record, version = work.estate.require_record()
    if _same(record, wanted):
        return
    if not any(_same(record, one) for one in allowed):
        message = f"the record says {record.region} {record.state}, epoch {record.epoch}: not what this move has left there"
        raise MrcError("RECORD_UNEXPECTED", message, where=work.plan.id)
    stamped = msgspec.structs.replace(wanted, execution=work.plan.id, at_ms=work.estate.clock.now_ms())
    work.estate.store.put_record(work.lead, stamped, version)


def _same(one: ActiveRecord, other: ActiveRecord) -> bool:
    return (one.region, one.state, one.epoch) == (other.region, other.state, other.epoch)


def _records(plan: Plan) -> tuple[ActiveRecord, ActiveRecord, ActiveRecord, ActiveRecord]:
    """Return the four records of a move: source open, source draining, target closed, target open."""
    return (
        ActiveRecord(plan.source, "open", plan.epoch),
        ActiveRecord(plan.source, "draining", plan.epoch),
        ActiveRecord(plan.target, "closed", plan.epoch),
        ActiveRecord(plan.target, "open", Epoch(plan.epoch + 1)),
    )


def _never_opened(plan: Plan) -> ActiveRecord:
    """Return the record where a failover takes the place of a move to its source that died before it had opened it."""
    return ActiveRecord(plan.source, "closed", plan.epoch)


def _reconcile_fence(work: Work, region: Region) -> None:
    """Bring a fence to the record at once; a lost race means that somebody else did, and is looked at again."""
    for _ in range(5):
        try:
            if not fencing.reconcile(work.estate, region, work.lead):
                return
        except MrcError as error:
            if error.code != "STALE_TERM":
                raise
            work.lead()


# ---------------------------------------------------------------- preflight, attest


def _preflight(work: Work) -> dict[str, str]:
    inventory = msgspec.structs.replace(work.observe(), execution="")
    plan = work.plan
    settled = plan.attested or bool(plan.self_imposed)
    against = findings(inventory, plan.kind, plan.target, attested=settled, superseding=bool(plan.supersedes), restarted=plan.restarted)
    found = [f for f in against if f.severity == "error"]
    if found:
        raise MrcError("PLAN_REFUSED", spelt(found))
    if work.plan.kind == "switchover":  # a failback looks when its flow runs: see settle-old-log
        if obstacles := work.positions.obstacles():
            raise MrcError("PLAN_REFUSED", spelt(obstacles))
        # Whatever is unread when the fence stands is read inside the write block.
        work.wait(lambda: not work.positions.behind(), lambda: MrcError("CAPTURE_BEHIND", work.positions.behind(), where=str(work.forward)))
    groups = inventory.regions[work.plan.source].groups
    live = [group for group, info in groups.value.items() if info.members] if isinstance(groups, Known) else []
    return {"live_groups": ",".join(sorted(live))}


def _preflight_seen(work: Work) -> str:
    return f"no finding forbids the move; groups with members: {work.facts.get('live_groups') or 'none'}"


def _attested(work: Work) -> str:
    if not work.plan.attested:
        return _self_imposed(work)
    return f"{work.plan.actor} attests that {work.plan.source} is dead; its fence is unverified until it returns"


def _self_imposed(work: Work) -> str:
    source = work.plan.source
    if not work.plan.self_imposed:
        raise MrcError("NOT_ATTESTED", f"nobody has attested that {source} is dead")
    if work.estate.store.tree.get(leader_path(source)) is not None:
        raise MrcError("NOT_ATTESTED", f"an agent leads in {source} again, so the region is no longer fenced by itself", where=str(source))
    return f"nobody attests that {source} is dead; its fence is self-imposed, unverified until it returns: {work.plan.self_imposed}"


# ---------------------------------------------------------------- fence, drain, release


def _fence_source(work: Work) -> dict[str, str]:
    """Begin the fence, once no leader refuses because of an earlier one: its refusals would be taken for proofs of this one.

    A move of kind fence does not wait for that: it is an emergency, and nothing is opened on the strength of its proof.
    """
    opened, draining, closed, target_open = _records(work.plan)
    record, _ = work.estate.require_record()
    if _same(record, opened) and work.plan.kind != "fence":
        work.wait_for(lambda: fencing.require_open(work.estate, work.plan.source))
    if not (_same(record, closed) or _same(record, target_open)):  # proved again later: the record has moved on
        _set_record(work, (opened,), draining)
    _reconcile_fence(work, work.plan.source)
    return {}


def _source_fenced(work: Work) -> str:
    """While draining nothing may be appended at all; later MM2 writes there, and refusals alone are the proof.

    ACLs reach the brokers asynchronously and open transactions end by themselves: both are waited for.
    """
    record, _ = work.estate.require_record()
    still = record.region == work.plan.source
    return work.wait_for(lambda: fencing.require_fenced(work.estate, work.plan.source, still=still)).detail


def _open_source(work: Work) -> dict[str, str]:
    _, draining, _, _ = _records(work.plan)
    _set_record(work, (draining,), ActiveRecord(work.plan.source, "open", Epoch(work.plan.epoch + 1)))
    return {}


def _source_open(work: Work) -> str:
    source = work.plan.source

    def writable() -> bool:
        # The source's own leader takes the refusals away; this agent leads elsewhere.
        return fencing.prove(work.estate, source, still=False).state in ("open", "unverified")

    work.wait(writable, lambda: MrcError("NOT_VERIFIED", f"{source} does not take writes yet", where=str(source)))
    return f"{source} is open again"


def _reopen_source(work: Work) -> str:
    record, _ = work.estate.require_record()
    if _same(record, _records(work.plan)[0]):
        return f"{work.plan.source} was not fenced"
    _open_source(work)
    try:
        return _source_open(work)
    except MrcError as error:
        if error.code != "CLUSTER_UNREACHABLE":
            raise
        # A dead source must not keep the execution from ending: only then may somebody fail over.
        return f"the record says that {work.plan.source} is open; its leading agent takes the refusals away when the region answers"


def _begins(work: Work) -> dict[TopicPartition, Offset]:
    """Return from where the forward flow copies; records before that came from the target, or were left by a failover."""
    found = work.estate.store.flow_start(work.forward)
    if found is None:
        return {}
    return {TopicPartition(topic, p): offset for topic, offsets in found[0].positions.items() for p, offset in enumerate(offsets)}


def _to_copy(work: Work) -> dict[TopicPartition, Seen | None]:
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


def _drained(work: Work) -> str:
    target = work.estate.clusters[work.plan.target]
    behind: list[TopicPartition] = []
    names = work.estate.unit.counterparts(work.plan.source)
    last = {TopicPartition(names[tp.topic], tp.partition): seen for tp, seen in _to_copy(work).items() if seen is not None}
    sight = work.estate.sights(work.forward).target

    def done() -> bool:
        tps = list(last)
        mirror = target.last_records(tps, target.ends(tps, "read_uncommitted"), sight)
        behind[:] = [tp for tp in tps if (seen := mirror[tp]) is None or seen.fingerprint != last[tp].fingerprint]
        return not behind

    work.wait(done, lambda: MrcError("EFFECT_TIMED_OUT", f"not drained: {', '.join(map(str, behind))}", where=str(work.forward)))
    return f"the mirror ends with the source's last record on {len(last)} partitions; nothing to copy on the others"


def _released(work: Work) -> str:
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


# ---------------------------------------------------------------- the forward flow


_STAYS = "both flows go on: under the default policy a move stops and turns none"


def _stop_flow(work: Work) -> dict[str, str]:
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
        _reconcile_fence(work, work.plan.target)
        return {"blocked": ",".join(work.estate.unit.replicators)}
    return {}


def _flow_stopped(work: Work) -> str:
    try:
        return _without_tasks(work)
    except MrcError as error:
        if error.code != "CONNECT_UNREACHABLE" or "blocked" not in work.facts:
            raise
    record, _ = work.estate.require_record()
    # Once the target is open its applications write there.
    opened = _same(record, _records(work.plan)[3])
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
    last, positions = _to_copy(work), replicator.positions(connector)
    short = [tp for tp, seen in last.items() if seen is not None and positions.get(tp) != seen.offset + 1]
    if short:
        raise MrcError("NOT_VERIFIED", f"{connector} stopped before the source's end: {', '.join(map(str, short))}", where=connector)
    return f"{connector} has no tasks; its last positions are the source's last visible records"


def _resume_flow(work: Work) -> str:
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

    def runs() -> bool:
        status = replicator.status(connector)
        return bool(status.tasks) and all(task == "RUNNING" for task in status.tasks)

    work.wait(runs, lambda: MrcError("NOT_VERIFIED", f"{connector} does not run: {replicator.status(connector)}", where=connector))
    return f"{connector} runs again"


# ---------------------------------------------------------------- ends and the ledger


def _record_ends(work: Work) -> dict[str, str]:
    if not work.flows_stay:
        _record_start(work)
    if work.flows_stay or work.plan.kind == "failover":
        _list_own(work)
    if work.plan.kind == "failover":
        bounding.write(work)
        return {}
    return {"source_ends": _source_ends(work)} if work.flows_stay else {}


def _source_ends(work: Work) -> str:
    """Return a digest of where the source's logs end: a flow that goes on has no last position to compare them with."""
    source = work.estate.clusters[work.plan.source]
    ends = source.ends(work.estate.partitions(work.plan.source), "read_uncommitted")
    return hashlib.sha256(encode(sorted((tp.topic, tp.partition, end) for tp, end in ends.items()))).hexdigest()[:16]


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


def _ends_recorded(work: Work) -> str:
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


def _forget_ends(work: Work) -> str:
    found = work.estate.store.flow_start(work.forward.reversed)
    if found is not None and not found[0].applied and found[0].epoch == work.plan.epoch + 1:
        work.estate.store.forget_flow_start(work.lead, work.forward.reversed, found[1])
    for ledger, version in work.estate.store.ledgers():
        if ledger.id == work.plan.id:
            work.estate.store.forget_ledger(work.lead, ledger, version)
    return "forgotten"


# ---------------------------------------------------------------- close, positions, open


def _close_source(work: Work) -> dict[str, str]:
    opened, draining, closed, _ = _records(work.plan)
    _set_record(work, (draining,) if work.plan.planned else (opened, draining, _never_opened(work.plan)), closed)
    if work.plan.planned:
        _reconcile_fence(work, work.plan.source)
    return {}


def _source_closed(work: Work) -> str:
    record, _ = work.estate.require_record()
    if not _same(record, _records(work.plan)[2]):
        raise MrcError("RECORD_UNEXPECTED", f"the record says {record.region} {record.state}, epoch {record.epoch}", where=work.plan.id)
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


def _unclose_source(work: Work) -> str:
    opened, draining, closed, _ = _records(work.plan)
    record, _ = work.estate.require_record()
    if work.plan.kind == "failover":
        if not _same(record, opened):
            _set_record(
                work, (closed, draining, _never_opened(work.plan)), ActiveRecord(work.plan.source, "open", Epoch(work.plan.epoch + 1))
            )
        return f"{work.plan.source} is the active region again"
    if _same(record, closed):
        _set_record(work, (closed,), draining)
    return "draining again"


def _move_positions(work: Work) -> dict[str, str]:
    wanted = _wanted_positions(work)
    again = encode(work.positions.rereads).decode()
    target = work.estate.clusters[work.plan.target]
    with work.estate.committing:
        for groups in _lots(tuple(wanted)):
            work.lead()
            target.commit_positions_of({group: wanted[group] for group in groups})
    return {"positions": str(sum(map(len, wanted.values()))), "positions_hash": _hash(wanted), "rereads": again}


def _lots(groups: Sequence[GroupId]) -> Iterator[Sequence[GroupId]]:
    """Return so many groups at a time that their commits end well within a lease."""
    for begin in range(0, len(groups), COMMITTED_AT_ONCE):
        yield groups[begin : begin + COMMITTED_AT_ONCE]


def _wanted_positions(work: Work) -> dict[GroupId, dict[TopicPartition, Position]]:
    """Translate, clamp to the target's log, and give every partition a position: one without a commit begins at the start."""
    target = work.estate.clusters[work.plan.target]
    tps = work.estate.read_partitions(work.plan.target)
    starts, ends = target.starts(tps), target.ends(tps, "read_uncommitted")
    planned = work.plan.planned
    translated = work.positions.final_positions(source_alive=planned, deadline_s=work.deadline_s)
    if planned and (obstacles := work.positions.obstacles()):
        raise MrcError("NOT_VERIFIED", spelt(obstacles), where=str(work.forward))
    wanted: dict[GroupId, dict[TopicPartition, Position]] = {}
    for group in work.estate.unit.groups:
        known = translated.get(group, {})
        wanted[group] = {}
        for tp in tps:
            position = known.get(tp, Position(starts[tp]))
            if planned and position.offset > ends[tp]:
                raise InvariantViolation(f"{group} is to begin at {position.offset}, behind the end {ends[tp]}", where=str(tp))
            clamped = Offset(max(starts[tp], min(position.offset, ends[tp])))
            wanted[group][tp] = Position(clamped, position.metadata)
    return wanted


def _hash(positions: Mapping[GroupId, Mapping[TopicPartition, Position]]) -> str:
    """A short digest of positions, so that the journal can name them without holding them."""
    rows = sorted((group, tp.topic, tp.partition, p.offset) for group, by_tp in positions.items() for tp, p in by_tp.items())
    return hashlib.sha256(encode(rows)).hexdigest()[:16]


def _positions_moved(work: Work) -> str:
    """Read back, and translate anew: both must agree with what was committed. What got past the fence is found here, not too late."""
    target = work.estate.clusters[work.plan.target]
    wanted: dict[GroupId, dict[TopicPartition, Position]] = {}
    found: dict[GroupId, dict[TopicPartition, Position]] = {}
    looks = [lambda: wanted.update(_wanted_positions(work)), lambda: found.update(target.positions_of(work.estate.unit.groups))]
    if work.plan.planned:
        looks.append(lambda: _require_nothing_new(work))
    work.estate.together(looks)
    for group, positions in wanted.items():
        wrong = [str(tp) for tp, position in positions.items() if found[group].get(tp) != position]
        if wrong:
            raise MrcError("NOT_VERIFIED", f"group {group} has other positions on {', '.join(wrong)}", where=str(work.plan.target))
    return f"{sum(map(len, wanted.values()))} positions of {len(wanted)} groups read back, hash {_hash(wanted)}"


def _open_target(work: Work) -> dict[str, str]:
    """Open the target, once every application's right to write there has been computed from its ACLs."""
    _, _, closed, target_open = _records(work.plan)
    estate, region = work.estate, work.plan.target
    bindings = estate.clusters[region].bindings()
    ours = frozenset(estate.store.fence(region)[0].bindings)
    blocked = fence.blocks_writers(estate.unit, bindings - ours)
    if blocked:
        raise MrcError("NOT_VERIFIED", f"ACLs would refuse {', '.join(blocked)} in {region}", where=str(region))
    if work.plan.planned and work.estate.clock.monotonic_s() - work.recent.still_since_s > STILL_FOR_S:
        _require_nothing_new(work)
    if "blocked" in work.facts and _same(work.estate.require_record()[0], closed):
        _record_ends(work)  # anew: a broker that learnt of the block late may have let the flow write meanwhile
    _set_record(work, (closed,), target_open)
    _reconcile_fence(work, region)
    return {}


def _require_nothing_new(work: Work) -> None:
    """Prove the source's fence once more, and that nothing got past it since the flow was stopped.

    Nobody writes in the source now, MirrorMaker neither, so its log must stand still and no transaction be open.
    """
    began_s = work.estate.clock.monotonic_s()
    record, _ = work.estate.require_record()
    if not _same(record, _records(work.plan)[2]):
        # Opened already, by this effect's first try: the reversed flow may write in the source by now.
        fencing.require_fenced(work.estate, work.plan.source, still=work.flows_stay)
        return
    fencing.require_fenced(work.estate, work.plan.source, still=True)
    if work.flows_stay:
        if _source_ends(work) != work.facts.get("source_ends"):
            raise MrcError("NOT_VERIFIED", "records have come in since its fence was proved", where=str(work.plan.source))
        work.recent.still_since_s = began_s
        return
    positions = work.estate.replicators[work.plan.target].positions(work.estate.connector(work.forward))
    new = [str(tp) for tp, seen in _to_copy(work).items() if seen is not None and positions.get(tp) != seen.offset + 1]
    if new:
        raise MrcError("NOT_VERIFIED", f"records came into {', '.join(new)} behind the stopped flow", where=str(work.plan.source))
    work.recent.still_since_s = began_s


def _target_open(work: Work) -> str:
    last: list[fencing.Proof] = []

    def done() -> bool:
        last[:] = [fencing.prove(work.estate, work.plan.target, still=False)]
        return last[0].state in ("open", "unverified")

    work.wait(
        done, lambda: MrcError("NOT_VERIFIED", f"{work.plan.target} does not take writes: {last[0].detail}", where=str(work.plan.target))
    )
    return f"epoch {work.plan.epoch + 1}; {last[0].detail}"


# ---------------------------------------------------------------- after the opening


def _route(work: Work) -> dict[str, str]:
    if work.estate.unit.carries_producers and not work.plan.restarted:
        message = (
            "nobody has attested that producers are started anew which the redirect would carry along: skip the step, or configure them"
        )
        raise MrcError("PRODUCERS_CARRIED", message, where="routing.producers")
    record, version = work.estate.require_record()
    if not _same(record, _records(work.plan)[3]):
        raise MrcError("RECORD_UNEXPECTED", f"the record says {record.region} {record.state}, epoch {record.epoch}", where=work.plan.id)
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


def _routed(work: Work) -> str:
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


# ---------------------------------------------------------------- the way back, the canary


def _flow_reversed(work: Work) -> str:
    """The source's own leader starts the flow into its region (`mrc.agent.flowing`); this waits for the evidence."""
    flow, estate = work.forward.reversed, work.estate
    connector = estate.connector(flow)

    def done() -> bool:
        return flowing.runs(estate, flow, set_first=not work.flows_stay)

    message = f"{flow} does not run yet; the leading agent of {flow.target} starts it"
    work.wait(done, lambda: MrcError("NOT_VERIFIED", message, where=connector))
    return f"{connector} runs{'' if work.flows_stay else ' from the recorded ends'}"


def _canary(work: Work) -> dict[str, str]:
    target = work.estate.clusters[work.plan.target]
    work.lead()
    target.ensure_topic(CANARY_TOPIC, compacted=True)
    target.append(CANARY_TOPIC, [(work.plan.replication_group.encode(), work.plan.id.encode())])
    return {}


def _canary_seen(work: Work) -> str:
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


STEPS: Mapping[str, Step] = {
    "preflight": Step(_preflight, _preflight_seen),
    "attest": Step(_nothing, _attested),
    "fence-source": Step(_fence_source, _source_fenced, _reopen_source),
    "reopen-source": Step(_open_source, _source_open),
    "drain": Step(_nothing, _drained),
    "release-groups": Step(_nothing, _released),
    "stop-flow": Step(_stop_flow, _flow_stopped, _resume_flow),
    "record-ends": Step(_record_ends, _ends_recorded, _forget_ends),
    "close-source": Step(_close_source, _source_closed, _unclose_source),
    "move-positions": Step(_move_positions, _positions_moved),
    "open-target": Step(_open_target, _target_open),
    "route": Step(_route, _routed),
    "reverse-flow": Step(_nothing, _flow_reversed),
    "canary": Step(_canary, _canary_seen),
    "command": Step(custom_steps.command, custom_steps.commanded),
    "http": Step(custom_steps.http, custom_steps.answered),
    "wait-for": Step(_nothing, custom_steps.waited_for),
    "pause": Step(custom_steps.pause, custom_steps.paused),
    "notify": Step(custom_steps.notify, custom_steps.notified),
    "await-region": Step(_nothing, failback.region_back),
    "hold-flow": Step(rebuilding.hold, rebuilding.held, rebuilding.let_go),
    "copy-acls": Step(rebuilding.copy_acls, rebuilding.acls_copied),
    "make-topics": Step(rebuilding.make_topics, rebuilding.topics_made),
    "start-flow": Step(rebuilding.start_flow, rebuilding.flow_started),
    "await-copies": Step(_nothing, rebuilding.copies_seen),
    "place-groups": Step(rebuilding.place_groups, rebuilding.groups_placed),
    "list-divergence": Step(failback.list_tails, failback.tails_listed),
    "export-divergence": Step(failback.export, failback.exported),
    "resolve-divergence": Step(failback.resolve, failback.resolved),
    "account-divergence": Step(failback.account, failback.accounted),
    "settle-old-log": Step(old_log.settle, old_log.settled, old_log.finish),
}

"""Making a running estate mrc's, and giving it back: the acts behind `mrc.core.failover.adoption`.

Both ways are a row of acts that may each be done twice, with a note in ZooKeeper between them: whoever is killed is followed by
the same command, which goes on from the note. At no time do two connectors copy the unit, and none begins elsewhere than
where the one before it ended; consumers' positions are not touched. No agent is needed, and agents that run hold still: they act only while
there is an active-region record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec

from mrc.agent import fencing, flowing
from mrc.agent.estate import Estate
from mrc.agent.leadership import leader_path
from mrc.agent.opening import CANARY_TOPIC
from mrc.core.errors import MrcError
from mrc.core.failover import adoption as adoptions
from mrc.core.failover import archive, fence
from mrc.core.failover.adoption import Addresses, Adoption, AdoptionPlan, Seen
from mrc.core.model import ActiveRecord, Epoch, Flow, Offset, Region, TopicPartition, encode, target_topic
from mrc.core.translation.positions import checkpoints_topic
from mrc.core.translation.sight import sights
from mrc.core.views import FindingView
from mrc.ports import CALL_DEADLINE_S, Check, Create, Delete, Sight

STOPS_WITHIN_S = 120.0
"""How long a connector's tasks may take to end, and to run."""

FENCED_WITHIN_S = 30.0
"""How long brokers may take to learn of the fence before it is called unverified."""

SEARCHED_MAX = 1_000_000
"""Records of a partition that are read behind a stored position for the last copy."""

RACES_MAX = 50
"""How often a fence that agents make at the same moment is looked at again."""

Say = Callable[[str], None]


class Report(msgspec.Struct, frozen=True):
    """What was done. ``paused_ms``: for how long nothing copied the unit; -1: copying was not interrupted."""

    done: tuple[str, ...]
    paused_ms: int
    unproved: tuple[str, ...]
    fence: str


@dataclass
class _Course:
    """One run of the command: the estate, the note, and what was said."""

    estate: Estate
    adoption: Adoption
    version: int
    say: Say
    done: list[str] = field(default_factory=list)

    @property
    def flow(self) -> Flow:
        return Flow(self.adoption.active, self.estate.unit.other(self.adoption.active))

    def note(self, *more: Check | Create | Delete, **changes: object) -> None:
        """Write how far it is, with ``more`` in the same transaction."""
        self.adoption = msgspec.structs.replace(self.adoption, **changes)
        self.version = self.estate.store.put_adoption(self.adoption, self.version, *more)

    def did(self, what: str) -> None:
        self.done.append(what)
        self.say(what)

    def tasks_gone(self, connector: str) -> None:
        """Stop a connector and wait until its tasks have ended. Raises ``EFFECT_TIMED_OUT``; the same command goes on."""
        replicator, clock = self.estate.replicators[self.flow.target], self.estate.clock
        replicator.stop(connector)
        if not self.estate.wait_until(lambda: not replicator.status(connector).tasks, clock.monotonic_s() + STOPS_WITHIN_S):
            raise MrcError(
                "EFFECT_TIMED_OUT", f"tasks of {connector} do not end; the same command goes on", where=connector, retryable=True
            )

    def runs(self, connector: str) -> None:
        """Resume a connector and wait until its tasks run; one that has none to run is not waited for longer than others."""
        replicator, clock = self.estate.replicators[self.flow.target], self.estate.clock
        replicator.resume(connector)

        def running() -> bool:
            status = replicator.status(connector)
            return status.state == "RUNNING" and status.tasks_run

        if not self.estate.wait_until(running, clock.monotonic_s() + STOPS_WITHIN_S):
            status = replicator.status(connector)
            message = f"{connector} is {status.state}, tasks {', '.join(status.tasks) or 'none'}: {status.trace}; the same command goes on"
            raise MrcError("EFFECT_TIMED_OUT", message, where=connector, retryable=True)

    def set_to(self, connector: str, positions: Mapping[TopicPartition, Offset]) -> None:
        """Set a STOPPED connector and read it back.

        A connector that was made to run first, so that Connect takes its positions, may not have stopped again when it is asked next.
        """
        replicator = self.estate.replicators[self.flow.target]
        refused: list[MrcError] = []

        def taken() -> bool:
            try:
                flowing.set_positions(replicator, connector, positions)
            except MrcError as error:
                if error.code != "CONNECT_REFUSED" or not (error.retryable or refused):
                    raise
                refused.append(error)
                return False
            return True

        if not self.estate.wait_until(taken, self.estate.clock.monotonic_s() + STOPS_WITHIN_S):
            raise refused[-1]


# ---------------------------------------------------------------- looking


def look(estate: Estate, region: Region, bootstrap: str) -> Seen:
    """Return what a region shows. Changes nothing. Raises world errors."""
    cluster, replicator, unit = estate.clusters[region], estate.replicators[region], estate.unit
    names = [*unit.topics, *(target_topic(unit.policy, unit.other(region), topic) for topic in unit.topics)]
    try:
        connectors = replicator.configurations()
    except MrcError as error:
        if error.code != "CONNECT_UNREACHABLE":
            raise
        message = f"Connect of {region} does not answer ({error.message}); if MirrorMaker 2 runs in dedicated mode: {adoptions.DEDICATED}"
        raise MrcError("CONNECT_UNREACHABLE", message, where=error.where, retryable=True) from error
    declared = estate.super_users.get(region)
    told = cluster.broker_settings()
    return Seen(
        bootstrap=bootstrap,
        topic_names=tuple(cluster.topic_names()),
        topics=cluster.topics(list(dict.fromkeys(names))),
        groups=cluster.groups(unit.groups),
        bindings=cluster.bindings(),
        broker_settings=told if declared is None else {**told, "super.users": ";".join(declared)},
        connectors=connectors,
        status={name: replicator.status(name) for name in adoptions.sources(connectors)},
    )


def plan(estate: Estate, active: Region, addresses: Mapping[Region, Addresses]) -> AdoptionPlan:
    """Return what `adopt` would do now.

    Raises:
        MrcError: ``ALREADY_ADOPTED``; ``ADOPTION_REFUSED`` where the group is being given back; world errors.
    """
    if estate.unit.mode != "active-passive":
        raise MrcError("MODE_NOT_SUPPORTED", f"{estate.unit.name} is {estate.unit.mode}")
    found = begun(estate)
    if found is not None:
        if found.active != active:
            raise MrcError("ADOPTION_REFUSED", f"an adoption with {found.active} open was begun: go on with that", where=estate.unit.name)
        return AdoptionPlan((f"go on with the adoption that was begun; it is {found.state}",), (), found)
    left = estate.store.adoption()
    epoch = Epoch(left[0].epoch + 1) if left else Epoch(1)
    return adoptions.plan(
        estate.unit, active, {region: look(estate, region, addresses[region].local) for region in estate.unit.regions}, epoch
    )


def begun(estate: Estate) -> Adoption | None:
    """Return the adoption that was begun and not ended; None where none was. Raises ``ALREADY_ADOPTED``, ``ADOPTION_REFUSED``."""
    found, record = estate.store.adoption(), estate.store.record()
    state = found[0].state if found else "left"
    if state in ("leaving", "drained", "returned"):
        raise MrcError("ADOPTION_REFUSED", "the estate is being given back: let `mrc unmanage` end first", where=estate.unit.name)
    if state == "opened" and found is not None:
        return found[0]
    if record is not None:
        raise MrcError(
            "ALREADY_ADOPTED", f"{record[0].region} is {record[0].state}, epoch {record[0].epoch}", where=estate.store.record_path
        )
    return found[0] if found is not None and state != "left" else None


# ---------------------------------------------------------------- the way in


def adopt(estate: Estate, wanted: Adoption, addresses: Mapping[Region, Addresses], say: Say) -> Report:
    """Do what `plan` has shown, or go on with what an earlier call has begun.

    Raises:
        MrcError: ``ALREADY_ADOPTED``; ``STALE_TERM`` when another does the same at this moment; ``EFFECT_TIMED_OUT``, ``NOT_VERIFIED``
            and world errors, after which the same call goes on.
    """
    store = estate.store
    store.prepare()
    before = begun(estate)
    found = store.adoption()
    if before is None:
        version = store.put_adoption(wanted, found[1] if found else None)
        course = _Course(estate, wanted, version, say)
    elif found is not None:
        course = _Course(estate, before, found[1], say)
    if course.adoption.state in ("begun", "stopped", "set"):
        (_split if course.adoption.old else _keep)(course)
        _way_back(course, addresses)
        record = ActiveRecord(course.adoption.active, "open", course.adoption.epoch, at_ms=estate.clock.now_ms())
        course.note(Create(store.record_path, encode(record)), state="opened")
        course.did(f"{record.region} is open, epoch {record.epoch}")
    fence_said = _fence(course)
    course.note(state="adopted")
    return Report(tuple(course.done), course.adoption.paused_ms, course.adoption.unproved, fence_said)


def _split(course: _Course) -> None:
    """Hand the unit's topics from the old connector to one of their own."""
    estate, replicator = course.estate, course.estate.replicators[course.flow.target]
    connector, old = course.adoption.connector, course.adoption.old
    if course.adoption.state == "begun":
        if not course.adoption.stopped_at_ms:
            course.note(stopped_at_ms=estate.clock.now_ms())
        course.tasks_gone(old)
        positions, unproved = _ended_at(course, old)
        course.note(state="stopped", positions=_by_topic(estate, positions), unproved=unproved)
        course.did(f"{old} has ended; its positions are noted")
    settings = replicator.settings(old)
    if (less := adoptions.narrowed(settings, estate.unit)) != settings:
        replicator.configure(old, less)
        course.did(f"{old} leaves {', '.join(estate.unit.topics)} out")
    if course.adoption.ran:
        replicator.resume(old)
    if course.adoption.state == "stopped":
        replicator.create(connector, adoptions.split_off(settings, estate.unit, connector))
        course.tasks_gone(connector)
        course.set_to(connector, course.adoption.offsets())
        course.note(state="set")
        course.did(f"{connector} is made and stands where {old} ended")
    course.runs(connector)
    if course.adoption.paused_ms < 0:
        course.note(paused_ms=max(0, estate.clock.now_ms() - course.adoption.stopped_at_ms))
        course.did(f"{connector} runs; nothing copied the unit for {course.adoption.paused_ms / 1000:.1f} s")


def _keep(course: _Course) -> None:
    replicator, connector = course.estate.replicators[course.flow.target], course.adoption.connector
    settings = replicator.settings(connector)
    if (tamed := adoptions.tamed(settings)) != settings:
        replicator.configure(connector, tamed)
        course.did(f"{connector} copies no ACLs any more")
    course.runs(connector)


def _way_back(course: _Course, addresses: Mapping[Region, Addresses]) -> None:
    name, back = course.adoption.reverse, course.flow.reversed
    if name:
        there = course.estate.replicators[course.flow.target].settings(course.adoption.connector)
        course.estate.replicators[back.target].create(name, adoptions.reversed_settings(there, course.estate.unit, name, addresses, back))
        course.did(f"{name} stands by for the way back")


def _fence(course: _Course) -> str:
    """Make the standby's fence, as leading agents do, and prove it where that is possible."""
    estate, region = course.estate, course.flow.target
    for _ in range(RACES_MAX):
        try:
            if not fencing.reconcile(estate, region, lambda: estate.store.adoption_check(course.version)):
                break
            course.did(f"{region} is fenced")
        except MrcError as error:
            if error.code != "STALE_TERM":
                raise
            estate.clock.sleep(0.1)  # an agent has just made it
    said: list[str] = []

    def proved() -> bool:
        try:
            said[:] = [fencing.require_fenced(estate, region, still=False).detail]
        except MrcError as error:
            said[:] = [f"unverified: {error.message}"]
            return error.code == "UNKNOWN_TOPIC"
        return True

    if not estate.unit.probe:
        return "unverified: there is no probe"
    estate.wait_until(proved, estate.clock.monotonic_s() + FENCED_WITHIN_S)
    return said[0]


def _by_topic(estate: Estate, positions: Mapping[TopicPartition, Offset]) -> dict[str, tuple[Offset, ...]]:
    return {topic: tuple(positions[tp] for tp in sorted(positions) if tp.topic == topic) for topic in estate.unit.topics}


def _ended_at(course: _Course, connector: str) -> tuple[dict[TopicPartition, Offset], tuple[str, ...]]:
    """Return the next source offset to copy per partition, now that the connector has no tasks, and where that is not proved.

    A task that was killed instead of stopped has copied further than Connect knows: so the last copy is looked for in the source, at
    the stored position or behind it. Where it is not there (transforms, compaction, retention) the stored position stands, as it
    would have for the connector itself.
    """
    estate, flow = course.estate, course.flow
    source, target = estate.clusters[flow.source], estate.clusters[flow.target]
    stored = estate.replicators[flow.target].positions(connector)
    tps = estate.partitions(flow.source)
    copies = {tp: TopicPartition(target_topic(estate.unit.policy, flow.source, tp.topic), tp.partition) for tp in tps}
    here = source.topics(estate.unit.topics)
    there = target.topics(list(dict.fromkeys(copy.topic for copy in copies.values())))
    names = {topic: target_topic(estate.unit.policy, flow.source, topic) for topic in estate.unit.topics}
    looks = sights(names, here, there, estate.replicators[flow.target].settings(connector))
    mirror = target.last_records(list(copies.values()), target.ends(list(copies.values()), "read_uncommitted"), looks.target)
    begins = {tp: stored.get(tp, Offset(0)) for tp in tps}
    last = source.last_records(tps, begins, looks.source)
    unproved: list[str] = []
    for tp in tps:
        copy, record = mirror[copies[tp]], last[tp]
        if copy is None or (record is not None and record.fingerprint == copy.fingerprint):
            continue
        further = _find(course, tp, begins[tp], copy.fingerprint, looks.source)
        if further is None:
            unproved.append(str(tp))
        else:
            begins[tp] = further
    return begins, tuple(unproved)


def _find(course: _Course, tp: TopicPartition, begin: Offset, fingerprint: int, sight: Sight) -> Offset | None:
    """Return the offset behind the first record at or after ``begin`` with this fingerprint; None where there is none."""
    source = course.estate.clusters[course.flow.source]
    start, end = source.starts([tp])[tp], source.ends([tp], "read_committed")[tp]
    position, read = Offset(max(begin, start)), 0
    reader = source.reader({tp: position}, sight)
    try:
        while position < end and read < SEARCHED_MAX:
            batches = reader.poll(10_000, 5.0)
            if not batches:
                raise MrcError("CLUSTER_UNREACHABLE", f"reading {tp} stands still at {position}", where=str(tp), retryable=True)
            for batch in batches:
                position, read = batch.position, read + len(batch.records)
                for seen in batch.records:
                    if seen.fingerprint == fingerprint:
                        return Offset(seen.offset + 1)
    finally:
        reader.close()
    return None


# ---------------------------------------------------------------- the way out


class Leaving(msgspec.Struct, frozen=True):
    """What a person chose.

    Attributes:
        keep_connectors: leave the connectors as they are now.
        remove_topics: delete mrc's own topics in both regions.
        remove_nodes: delete what mrc keeps in ZooKeeper of the replication group, its history too.
    """

    keep_connectors: bool = False
    remove_topics: bool = False
    remove_nodes: bool = False


def release_plan(estate: Estate, choice: Leaving) -> AdoptionPlan:
    """Return what `release` would do now, and what stands against it. Raises ``NO_ACTIVE_RECORD``; world errors."""
    store, unit = estate.store, estate.unit
    found, record = store.adoption(), store.record()
    if record is None and (found is None or found[0].state not in ("leaving", "drained", "returned")):
        hint = "; an adoption was begun: end it with `mrc init`, then give the estate back" if found and found[0].state != "left" else ""
        raise MrcError("NO_ACTIVE_RECORD", f"{unit.name} is not mrc's{hint}", where=store.record_path)
    findings: list[FindingView] = []
    adoption = found[0] if found else None
    if record is not None:
        current, _ = store.current()
        if current or record[0].state != "open":
            message = f"execution {current or record[0].execution} is running: let it end first"
            findings.append(FindingView("MOVE_IN_PROGRESS", "error", message, unit.name))
        if adoption is None:
            flow = Flow(record[0].region, unit.other(record[0].region))
            adoption = Adoption(
                active=flow.source,
                epoch=record[0].epoch,
                connector=unit.connectors[flow],
                old="",
                ran=True,
                before={},
                reverse="",
                state="left",
            )
        elif adoption.active != record[0].region and not choice.keep_connectors:
            message = (
                f"{record[0].region} is open, and the estate came with {adoption.active} open: move it back first, or leave the "
                "connectors as they are with --keep-connectors"
            )
            findings.append(FindingView("ADOPTION_REFUSED", "error", message, unit.name))
        adoption = msgspec.structs.replace(adoption, epoch=record[0].epoch, keeps=choice.keep_connectors)
    if adoption is None:
        raise MrcError("NO_ACTIVE_RECORD", f"{unit.name} is not mrc's", where=store.record_path)
    if any(ledger.state == "open" for ledger, _ in store.ledgers()):
        message = "a failover's divergence has not been listed: what only the old region has is known to nobody else"
        findings.append(FindingView("ADOPTION_REFUSED", "warning" if not choice.remove_nodes else "error", message, unit.name))
    refused = any(finding.severity == "error" for finding in findings)
    return AdoptionPlan(() if refused else tuple(_ways_out(estate, adoption, choice)), tuple(findings), None if refused else adoption)


def _ways_out(estate: Estate, adoption: Adoption, choice: Leaving) -> list[str]:
    fenced = {region: len(estate.store.fence(region)[0].bindings) for region in estate.unit.regions}
    acts = [
        f"remove the active-region record (epoch {adoption.epoch}): agents rest, clients that follow it stop",
        f"remove the ACLs that mrc added: {', '.join(f'{count} in {region}' for region, count in fenced.items())}",
    ]
    if adoption.keeps:
        acts.append("leave every connector as it is")
    elif adoption.old:
        acts += [
            f"stop {adoption.connector}, then {adoption.old}, and set {adoption.old} to where {adoption.connector} ended",
            f"let {adoption.old} copy {', '.join(estate.unit.topics)} again; delete {adoption.connector}",
            *([f"resume {adoption.old}"] if adoption.ran else []),
        ]
    elif adoption.before:
        acts.append(f"set {', '.join(adoption.before)} of {adoption.connector} as it was")
    if adoption.reverse and not adoption.keeps:
        acts.append(f"delete {adoption.reverse}")
    acts.append("delete mrc's own topics" if choice.remove_topics else "keep mrc's own topics")
    acts.append("delete what mrc keeps in ZooKeeper, its history too" if choice.remove_nodes else "keep the history in ZooKeeper")
    acts.append("consumers' positions stay as they are, in both regions")
    return acts


def release(estate: Estate, wanted: Adoption, choice: Leaving, say: Say, *, last: bool) -> Report:
    """Do what `release_plan` has shown, or go on with it.

    Args:
        last: no other replication group is mrc's: its topics belong to nobody else.

    Raises:
        MrcError: as `adopt`.
    """
    store = estate.store
    found, record = store.adoption(), store.record()
    version = found[1] if found else None
    if record is not None:
        current, current_version = store.current()
        if current:
            raise MrcError("MOVE_IN_PROGRESS", f"execution {current} is running: let it end first", where=current)
        leaving = msgspec.structs.replace(wanted, state="leaving", stopped_at_ms=0, paused_ms=-1, unproved=())
        gone = (Check(f"{store.root}/current", current_version), Delete(store.record_path, record[1]))
        course = _Course(estate, leaving, store.put_adoption(leaving, version, *gone), say)
        course.did("the active-region record is gone")
    elif version is None:
        raise MrcError("NO_ACTIVE_RECORD", f"{estate.unit.name} is not mrc's", where=store.record_path)
    else:
        course = _Course(estate, wanted, version, say)
    _quiet(course)
    _unfence(course)
    _give_back(course)
    for region in estate.unit.regions:
        store.forget(f"{store.root}/fences/{region}")
    for flow in estate.unit.connectors:
        store.forget(f"{store.root}/flows/{flow}")
    if choice.remove_topics and last:
        _remove_topics(course)
    elif choice.remove_topics:
        course.did("mrc's own topics stay: other replication groups use them")
    report = Report(tuple(course.done), course.adoption.paused_ms, course.adoption.unproved, "none")
    course.note(state="left")
    if choice.remove_nodes:
        for name in store.tree.children(store.root):
            if name != "adoption":
                store.forget(f"{store.root}/{name}")
        store.forget(store.root)
    return report


def _quiet(course: _Course) -> None:
    """Wait until whatever agents have begun under the record that is gone has ended: each of their calls has its deadline."""
    estate = course.estate
    if any(estate.store.tree.get(leader_path(region)) is not None for region in estate.unit.regions):
        estate.clock.sleep(2 * CALL_DEADLINE_S)


def _unfence(course: _Course) -> None:
    """Take away what mrc added and is still there, and nothing else."""
    estate = course.estate
    for region in estate.unit.regions:
        cluster = estate.clusters[region]
        existing = cluster.bindings()
        imposed = fence.self_imposed(estate.unit, existing)
        ours = (frozenset(estate.store.fence(region)[0].bindings) | imposed.made | imposed.marks) & existing
        if ours:
            cluster.remove_bindings(ours)
            course.did(f"{len(ours)} ACLs are gone from {region}")


def _give_back(course: _Course) -> None:
    estate, adoption = course.estate, course.adoption
    if adoption.keeps:
        return
    replicator = estate.replicators[course.flow.target]
    if adoption.old:
        _merge(course)
    elif adoption.before:
        settings = replicator.settings(adoption.connector)
        if settings and (before := adoptions.untamed(settings, adoption.before)) != settings:
            replicator.configure(adoption.connector, before)
            course.did(f"{adoption.connector} has its settings of before")
        if settings and not adoption.ran:
            replicator.stop(adoption.connector)
    if adoption.reverse and estate.replicators[adoption.active].settings(adoption.reverse):
        estate.replicators[adoption.active].delete(adoption.reverse)
        course.did(f"{adoption.reverse} is deleted")


def _merge(course: _Course) -> None:
    """Hand the unit's topics back to the connector that had them."""
    estate, replicator = course.estate, course.estate.replicators[course.flow.target]
    connector, old = course.adoption.connector, course.adoption.old
    if course.adoption.state == "leaving":
        if not course.adoption.stopped_at_ms:
            course.note(stopped_at_ms=estate.clock.now_ms())
        course.tasks_gone(connector)
        positions, unproved = _ended_at(course, connector)
        course.tasks_gone(old)
        course.note(state="drained", positions=_by_topic(estate, positions), unproved=unproved)
        course.did(f"{connector} has ended; its positions are noted")
    if course.adoption.state == "drained":
        course.set_to(old, course.adoption.offsets())
        settings = replicator.settings(old)
        if (more := adoptions.widened(settings, estate.unit, course.adoption.before)) != settings:
            replicator.configure(old, more)
        course.note(state="returned")
        course.did(f"{old} has {', '.join(estate.unit.topics)} again, from where {connector} ended")
    replicator.delete(connector)
    if course.adoption.ran:
        course.runs(old)
        if course.adoption.paused_ms < 0:
            course.note(paused_ms=max(0, estate.clock.now_ms() - course.adoption.stopped_at_ms))
            course.did(f"{old} runs; nothing copied the unit for {course.adoption.paused_ms / 1000:.1f} s")


def _remove_topics(course: _Course) -> None:
    estate = course.estate
    for region, cluster in estate.clusters.items():
        other = estate.unit.other(region)
        names = {checkpoints_topic(other), f"mrc.offset-map.{other}.internal", CANARY_TOPIC, archive.TOPIC}
        there = sorted(names & set(cluster.topic_names()))
        cluster.remove_topics(there)
        if there:
            course.did(f"{', '.join(there)} are deleted in {region}")

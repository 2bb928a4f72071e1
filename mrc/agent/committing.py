"""Positions that a person commits: mrc's own answers, or those of a file; and checkpoints that a person deletes.

Only for groups without members: their state is read right before, the broker refuses each partition of a group with members
besides, and what was committed is read back. Only where nobody else commits: never in the region that the record names, never
while a move runs. The lease is checked right before each effect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from mrc.agent import looking
from mrc.agent.coordinator import Coordinator
from mrc.agent.inspection import named, spots
from mrc.core.errors import MrcError
from mrc.core.inventory import Unit
from mrc.core.model import GroupId, Known, Offset, Reading, Region, TopicPartition, Unknown
from mrc.core.translation.checkpoint import CheckpointKey
from mrc.core.views import CommittedView, ForgottenView
from mrc.ports import Cluster, Position

RAISED = "raised to the log's start: what lay before is gone"
_DRY = "not-committed"


class Ready:
    """Positions that may be committed, and what was changed to make them so.

    Attributes:
        positions: within the log.
        notes: per partition whose position was changed.
    """

    def __init__(self, positions: dict[TopicPartition, Position], notes: dict[TopicPartition, str]) -> None:
        self.positions = positions
        self.notes = notes


def within(cluster: Cluster, wanted: Mapping[TopicPartition, Position]) -> Ready:
    """Return positions that the log has: one below its start is raised, for those records are gone.

    Raises:
        MrcError: ``OFFSET_OUT_OF_RANGE`` for one beyond the end: it is another log's; ``UNKNOWN_TOPIC``.
    """
    topics = cluster.topics(sorted({tp.topic for tp in wanted}))
    strange = [tp for tp in wanted if tp.topic not in topics or tp.partition >= len(topics[tp.topic].leaders)]
    if strange:
        raise MrcError("UNKNOWN_TOPIC", f"there is no {strange[0]} to commit on")
    starts, ends = cluster.starts(list(wanted)), cluster.ends(list(wanted), "read_uncommitted")
    beyond = [f"{tp} at {position.offset}, the log ends at {ends[tp]}" for tp, position in wanted.items() if position.offset > ends[tp]]
    if beyond:
        raise MrcError("OFFSET_OUT_OF_RANGE", f"{len(beyond)} positions lie beyond the log: {'; '.join(beyond[:5])}")
    fit = {tp: Position(Offset(max(starts[tp], position.offset)), position.metadata) for tp, position in wanted.items()}
    return Ready(fit, {tp: RAISED for tp in fit if fit[tp] != wanted[tp]})


def require_topics(unit: Unit, source: Region, wanted: Iterable[TopicPartition]) -> None:
    """Raise ``UNKNOWN_TOPIC`` for a topic that is none of the unit's in the region that ``source`` flows into."""
    ours = set(unit.read_in(unit.other(source)))
    strange = sorted({tp.topic for tp in wanted} - ours)
    if strange:
        raise MrcError("UNKNOWN_TOPIC", f"{strange[0]!r} is no topic of {unit.name} there; there are: {', '.join(sorted(ours))}")


def require_empty(cluster: Cluster, group: GroupId, where: str) -> None:
    """Raise ``GROUP_HAS_MEMBERS`` where a group has some now."""
    info = cluster.group(group)
    if info.members:
        raise MrcError("GROUP_HAS_MEMBERS", f"{group} has {info.members} members, its state is {info.state}", where=where, retryable=True)


def commit(cluster: Cluster, group: GroupId, positions: Mapping[TopicPartition, Position], where: str, lead: Callable[[], object]) -> None:
    """Commit for a group without members, and read back. Doing it again is harmless.

    Args:
        lead: called right before the effect; raises where somebody else leads.

    Raises:
        MrcError: ``GROUP_HAS_MEMBERS``; ``NOT_VERIFIED`` when other positions were read back; world errors.
    """
    require_empty(cluster, group, where)
    lead()
    cluster.commit_positions(group, positions)
    back = cluster.positions(group)
    wrong = [str(tp) for tp, position in positions.items() if back.get(tp) != position]
    if wrong:
        raise MrcError("NOT_VERIFIED", f"{group} has other positions on {', '.join(wrong[:5])}", where=where, retryable=True)


def before_and_after(
    group: GroupId,
    ready: Ready,
    before: Mapping[TopicPartition, Position],
    after: Mapping[TopicPartition, Position] | None,
    now_ms: int,
) -> tuple[CommittedView, ...]:
    """Return what was committed, or would be (``after`` is None), by topic and partition."""
    return tuple(
        CommittedView(
            group=group,
            topic=tp.topic,
            partition=tp.partition,
            before=looking.committed(Known(dict(before), now_ms), tp, now_ms),
            wanted=Known(float(ready.positions[tp].offset), now_ms),
            after=_after(after, tp, now_ms),
            note=ready.notes.get(tp, ""),
        )
        for tp in sorted(ready.positions)
    )


def _after(after: Mapping[TopicPartition, Position] | None, tp: TopicPartition, now_ms: int) -> Reading[float]:
    if after is None:
        return Unknown(_DRY, "nothing was committed", now_ms)
    return looking.committed(Known(dict(after), now_ms), tp, now_ms)


# ---------------------------------------------------------------- by an agent


def apply_offsets(coordinator: Coordinator, group: str, *, dry_run: bool) -> tuple[CommittedView, ...]:
    """See `Service.apply_offsets`: partitions without a safe offset are left out, with the reason."""
    if not group:
        raise MrcError("BAD_REQUEST", "group is empty", where="group")
    named(coordinator, group)
    _require_standby(coordinator, 0)
    now_ms = coordinator.estate.clock.now_ms()
    wanted: dict[TopicPartition, Position] = {}
    left_out: list[CommittedView] = []
    cluster = coordinator.estate.clusters[coordinator.estate.region]
    there = looking.positions(cluster, (GroupId(group),), now_ms)[GroupId(group)]
    for spot in spots(coordinator, (GroupId(group),)):
        if spot.safe is not None and spot.checkpoint is not None:
            wanted[spot.target] = Position(Offset(spot.safe.offset), spot.checkpoint.metadata)
        else:
            before = looking.committed(there, spot.target, now_ms)
            nothing = Unknown(_DRY, "nothing was committed", now_ms)
            left_out.append(
                CommittedView(group, spot.target.topic, spot.target.partition, before, spot.safe_offset(now_ms), nothing, "left out")
            )
    done = _commit(coordinator, GroupId(group), wanted, 0, dry_run=dry_run)
    return tuple(sorted((*done, *left_out), key=lambda one: (one.topic, one.partition)))


def commit_offsets(
    coordinator: Coordinator, group: str, epoch: int, wanted: Mapping[TopicPartition, Position], *, dry_run: bool
) -> tuple[CommittedView, ...]:
    """See `Service.commit_offsets`; topics by their names in the target."""
    if not group:
        raise MrcError("BAD_REQUEST", "group is empty", where="group")
    named(coordinator, group)
    require_topics(coordinator.estate.unit, coordinator.flow.source, wanted)
    return _commit(coordinator, GroupId(group), wanted, epoch, dry_run=dry_run)


def _commit(
    coordinator: Coordinator, group: GroupId, wanted: Mapping[TopicPartition, Position], epoch: int, *, dry_run: bool
) -> tuple[CommittedView, ...]:
    estate = coordinator.estate
    cluster = estate.clusters[estate.region]
    with estate.committing:
        _require_standby(coordinator, epoch)
        ready = within(cluster, wanted)
        before = cluster.positions(group)
        if dry_run:
            require_empty(cluster, group, str(estate.region))
            return before_and_after(group, ready, before, None, estate.clock.now_ms())
        commit(cluster, group, ready.positions, str(estate.region), estate.leadership.check)
        return before_and_after(group, ready, before, cluster.positions(group), estate.clock.now_ms())


def _require_standby(coordinator: Coordinator, epoch: int) -> None:
    """Refuse where the region's groups, or a move, commit for themselves, and positions of another epoch (0: not known)."""
    estate = coordinator.estate
    current, _ = estate.store.current()
    if current:
        raise MrcError("MOVE_IN_PROGRESS", f"execution {current} is running; it commits positions itself", where=current)
    record, _ = estate.require_record()
    if epoch and epoch != record.epoch:
        raise MrcError("POSITIONS_STALE", f"the positions are of epoch {epoch}; now it is {record.epoch}", where=str(estate.region))
    if record.region == estate.region:
        raise MrcError("TARGET_IS_OPEN", f"{record.region} is {record.state}, epoch {record.epoch}", where=str(record.region))


def forget(coordinator: Coordinator, group: str, topic: str, *, dry_run: bool) -> tuple[ForgottenView, ...]:
    """See `Service.forget`. The group need not be configured any more.

    Raises:
        MrcError: ``UNKNOWN_GROUP`` where it has no checkpoint; ``GROUP_HAS_POSITIONS``; the source does not answer.
    """
    if not group:
        raise MrcError("BAD_REQUEST", "group is empty", where="group")
    capture = coordinator.capture
    captured = capture.captured()
    keys = sorted((key for key in captured if key.group == group and topic in ("", key.topic)), key=lambda key: (key.topic, key.partition))
    if not keys:
        there = ", ".join(sorted({key.group for key in captured})) or "none"
        raise MrcError(
            "UNKNOWN_GROUP", f"there is no checkpoint of {group!r}{f' on {topic!r}' if topic else ''}; groups that have some: {there}"
        )
    _require_gone(coordinator, GroupId(group), keys)
    if not dry_run:
        coordinator.estate.leadership.check()
        capture.forget(keys)
    return tuple(ForgottenView(group, key.topic, key.partition, captured[key].source_offset, not dry_run) for key in keys)


def _require_gone(coordinator: Coordinator, group: GroupId, keys: list[CheckpointKey]) -> None:
    flow = coordinator.flow
    held = coordinator.estate.clusters[flow.source].positions(group)
    still = [str(tp) for key in keys if (tp := TopicPartition(key.topic, key.partition)) in held]
    if still:
        raise MrcError("GROUP_HAS_POSITIONS", f"{group} has positions on {', '.join(still[:5])}", where=str(flow.source))

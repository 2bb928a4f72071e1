"""What operators see of positions: groups on every partition, beside MM2's checkpoints and the target, and what cannot be moved.

Answers from the capture's present state and from bounded looks at the clusters; a cluster that did not answer the observer is
not waited for. Nothing here changes anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mrc.agent import looking
from mrc.agent.coordinator import Coordinator
from mrc.core.errors import MrcError
from mrc.core.model import GroupId, Known, Offset, Reading, Region, TopicPartition, Unknown
from mrc.core.translation.checkpoint import Checkpoint, CheckpointKey
from mrc.core.translation.positions import Place, Safe, safe
from mrc.core.translation.syncs import Mm2Checkpoint, Names, decode_mm2_checkpoint, names
from mrc.core.views import CheckpointView, GroupOffsetView, OffsetDiffView, TranslatedView, TranslationView, UnmovableView

GROUPS_ASKED_MAX = 2_000
"""Groups that are not configured and are asked for their positions; the others are named as not read."""

LOOK_S = 40.0
"""How long looking at groups, or counting records, may take in one call."""

NOTHING = TranslationView("unknown", reason="no-checkpoint", detail="no position of the group was captured on this partition")


class Spot:
    """One group on one partition, as the capture knows it.

    Attributes:
        source, target: the partition by its names on both sides.
        view, checkpoint: None where nothing was captured.
    """

    def __init__(
        self, group: GroupId, source: TopicPartition, target: TopicPartition, view: CheckpointView | None, checkpoint: Checkpoint | None
    ) -> None:
        self.group = group
        self.source = source
        self.target = target
        self.view = view
        self.checkpoint = checkpoint

    @property
    def safe(self) -> Safe | None:
        """What may be committed in the target."""
        return safe(self.checkpoint) if self.checkpoint is not None else None

    def source_offset(self, now_ms: int) -> Reading[float]:
        """The position in the source, as captured."""
        return Known(float(self.view.source_offset), now_ms) if self.view else Unknown(NOTHING.reason, NOTHING.detail, now_ms)

    def age_s(self, now_ms: int) -> Reading[float]:
        """How old that is."""
        return Known(self.view.age_s, now_ms) if self.view else Unknown(NOTHING.reason, NOTHING.detail, now_ms)

    def safe_offset(self, now_ms: int) -> Reading[float]:
        """The safe target offset."""
        found = self.safe
        if found is not None:
            return Known(float(found.offset), now_ms)
        translation = self.view.translation if self.view else NOTHING
        return Unknown(translation.reason, translation.detail, now_ms)


def named(coordinator: Coordinator, group: str) -> tuple[GroupId, ...]:
    """Return the configured groups that ``group`` names; empty: all. Raises ``UNKNOWN_GROUP``."""
    unit = coordinator.estate.unit
    if group and group not in unit.groups:
        raise MrcError("UNKNOWN_GROUP", f"no group {group!r}; there are: {', '.join(unit.groups)}")
    return (GroupId(group),) if group else unit.groups


def spots(coordinator: Coordinator, groups: Sequence[GroupId]) -> list[Spot]:
    """Return the groups on every partition of the topics, in order.

    Raises:
        MrcError: ``CAPTURE_BEHIND`` while the capture has not begun.
    """
    capture, flow, unit = coordinator.capture, coordinator.flow, coordinator.estate.unit
    snapshot, checkpoints = capture.snapshot(), capture.captured()
    if not snapshot.partitions and not checkpoints:
        raise MrcError("CAPTURE_BEHIND", capture.behind() or "the capture has not begun", where=str(flow), retryable=True)
    views = {(view.group, view.topic, view.partition): view for view in snapshot.checkpoints}
    tps = {TopicPartition(p.topic, p.partition) for p in snapshot.partitions}
    names = unit.counterparts(flow.source)
    tps |= {TopicPartition(key.topic, key.partition) for key in checkpoints if key.topic in names}
    found = []
    for group in groups:
        for tp in sorted(tps):
            target = TopicPartition(names[tp.topic], tp.partition)
            checkpoint = checkpoints.get(CheckpointKey(group, tp.topic, tp.partition))
            found.append(Spot(group, tp, target, views.get((group, tp.topic, tp.partition)) if checkpoint else None, checkpoint))
    return found


def group_offsets(coordinator: Coordinator, group: str) -> tuple[GroupOffsetView, ...]:
    """See `Service.group_offsets`."""
    estate, flow = coordinator.estate, coordinator.flow
    now_ms = estate.clock.now_ms()
    groups = named(coordinator, group)
    there = looking.positions(estate.clusters[flow.target], groups, now_ms)
    return tuple(
        GroupOffsetView(
            group=spot.group,
            source=flow.source,
            target=flow.target,
            topic=spot.source.topic,
            target_topic=spot.target.topic,
            partition=spot.source.partition,
            source_offset=spot.source_offset(now_ms),
            translation=spot.view.translation if spot.view else NOTHING,
            safe_offset=spot.safe_offset(now_ms),
            evidence=spot.safe.evidence if spot.safe else "",
            metadata=spot.checkpoint.metadata if spot.checkpoint else "",
            age_s=spot.age_s(now_ms),
            committed=looking.committed(there[spot.group], spot.target, now_ms),
        )
        for spot in spots(coordinator, groups)
    )


def translate_many(coordinator: Coordinator, places: Sequence[Place]) -> tuple[TranslatedView, ...]:
    """See `Service.translate_many`."""
    return tuple(TranslatedView(*place, _translated(coordinator, place)) for place in places)


def _translated(coordinator: Coordinator, place: Place) -> TranslationView:
    unit = coordinator.estate.unit
    if place.region not in unit.regions:
        return TranslationView(
            "unknown", reason="unknown-region", detail=f"no region {place.region!r}; there are: {', '.join(unit.regions)}"
        )
    topics = unit.read_in(coordinator.flow.source)
    if place.topic not in topics:
        return TranslationView("unknown", reason="unknown-topic", detail=f"no topic {place.topic!r}; there are: {', '.join(topics)}")
    try:
        return coordinator.capture.translate(Region(place.region), TopicPartition(place.topic, place.partition), Offset(place.offset))
    except MrcError as error:
        if error.code != "UNKNOWN_TOPIC":
            raise
        return TranslationView("unknown", reason="unknown-topic", detail=error.message)


# ---------------------------------------------------------------- beside MM2 and the target


def mm2_names(coordinator: Coordinator) -> Names:
    """Return where MM2 keeps what it knows of the flow, by its connector's settings. Raises world errors."""
    estate, flow = coordinator.estate, coordinator.flow
    return names(flow.source, flow.target, estate.replicators[flow.target].settings(estate.connector(flow)))


def diff(coordinator: Coordinator, group: str) -> tuple[OffsetDiffView, ...]:
    """See `Service.diff`. What is committed is read first: positions that go forward meanwhile are never taken for a skip.

    Raises:
        MrcError: ``UNKNOWN_GROUP``, ``CAPTURE_BEHIND``.
    """
    estate, flow = coordinator.estate, coordinator.flow
    groups = named(coordinator, group)
    there = looking.positions(estate.clusters[flow.target], groups, estate.clock.now_ms())
    now_ms = estate.clock.now_ms()
    mm2 = looking.ask(lambda: _mm2_checkpoints(coordinator), now_ms)
    until_s = estate.clock.monotonic_s() + LOOK_S
    found = []
    for spot in spots(coordinator, groups):
        committed = looking.committed(there[spot.group], spot.target, now_ms)
        verdict, detail = _verdict(coordinator, spot, committed, until_s)
        last = _last_of_mm2(mm2, spot, now_ms)
        found.append(
            OffsetDiffView(
                group=spot.group,
                source=flow.source,
                target=flow.target,
                topic=spot.source.topic,
                target_topic=spot.target.topic,
                partition=spot.source.partition,
                source_offset=spot.source_offset(now_ms),
                answer=spot.safe_offset(now_ms),
                evidence=spot.safe.evidence if spot.safe else "",
                repeats_max=spot.safe.repeats_max if spot.safe else 0,
                mm2_source=last if isinstance(last, Unknown) else Known(float(last.value.source), now_ms),
                mm2_target=last if isinstance(last, Unknown) else Known(float(last.value.target), now_ms),
                committed=committed,
                verdict=verdict,
                detail=detail,
            )
        )
    return tuple(found)


def _mm2_checkpoints(coordinator: Coordinator) -> dict[tuple[GroupId, TopicPartition], Mm2Checkpoint]:
    entries = coordinator.estate.clusters[coordinator.flow.target].load(mm2_names(coordinator).checkpoints)
    decoded = (decode_mm2_checkpoint(key, value) for key, value in entries.items())
    return {(one[0], one[1]): one[2] for one in decoded if one is not None}


def _last_of_mm2(
    mm2: Reading[dict[tuple[GroupId, TopicPartition], Mm2Checkpoint]], spot: Spot, now_ms: int
) -> Known[Mm2Checkpoint] | Unknown:
    if isinstance(mm2, Unknown):
        return mm2
    last = mm2.value.get((spot.group, spot.target))
    return Known(last, now_ms) if last is not None else Unknown("no-checkpoint", "MirrorMaker has written none", now_ms)


def _verdict(coordinator: Coordinator, spot: Spot, committed: Reading[float], until_s: float) -> tuple[str, str]:
    """Judge what is committed in the target by the safe offset; see `OffsetDiffView`."""
    answer = spot.safe
    if answer is None:
        return "unknown", spot.view.translation.detail if spot.view else NOTHING.detail
    if isinstance(committed, Unknown):
        return ("not-committed" if committed.reason == "no-position" else "unknown"), committed.detail
    there = int(committed.value)
    if there == answer.offset:
        return "agrees", ""
    if there < answer.offset:
        return "behind", f"at most {answer.offset - there:,} records would be read again"
    return _beyond(coordinator, spot.target, answer, there, until_s)


def _beyond(coordinator: Coordinator, tp: TopicPartition, answer: Safe, there: int, until_s: float) -> tuple[str, str]:
    """Markers and the like may lie between two offsets that mean the same; else records would be skipped."""
    estate = coordinator.estate
    if estate.clock.monotonic_s() > until_s:
        return "beyond", f"{there - answer.offset:,} offsets beyond the answer; not counted, for the call has taken {LOOK_S:g} s"
    cluster, sight = estate.clusters[coordinator.flow.target], coordinator.capture.sights.target
    counted = looking.between(cluster, tp, (answer.offset, there), sight, estate.clock.now_ms())
    if isinstance(counted, Unknown):
        return "beyond", f"{there - answer.offset:,} offsets beyond the answer; not counted: {counted.detail}"
    if counted.value == 0:
        return "agrees", f"no record lies between {answer.offset} and {there}"
    perhaps = "would be skipped" if answer.evidence == "exact" else "may be skipped"
    return "beyond", f"{counted.value:,.0f} records {perhaps}"


# ---------------------------------------------------------------- what cannot be moved


def unmovable(coordinator: Coordinator) -> tuple[UnmovableView, ...]:
    """See `Service.unmovable`: the source's groups by what they have committed there now.

    Raises:
        MrcError: the source does not answer.
    """
    estate, flow = coordinator.estate, coordinator.flow
    source, unit = estate.clusters[flow.source], estate.unit
    counts = {name: len(info.leaders) for name, info in source.topics(unit.read_in(flow.source)).items()}
    found = [*_configured(coordinator, counts)]
    others = looking.ask(source.other_groups, estate.clock.now_ms())
    if isinstance(others, Known):
        told = {group: protocol or "not told" for group, protocol in others.value.items()}
        found += [
            UnmovableView("other-protocol", g, "", -1, f"protocol: {told[g]}; its positions are not a consumer group's") for g in told
        ]
    else:
        found.append(UnmovableView("not-read", "", "", -1, f"groups of other protocols: {others.detail}"))
    found += _not_configured(coordinator)
    return tuple(sorted(found, key=lambda one: (one.kind, one.group, one.topic, one.partition)))


def _configured(coordinator: Coordinator, counts: dict[str, int]) -> Iterator[UnmovableView]:
    """Yield the configured groups without positions, or the partitions on which one has none."""
    estate, flow = coordinator.estate, coordinator.flow
    positions = looking.positions(estate.clusters[flow.source], estate.unit.groups, estate.clock.now_ms())
    for group, held in positions.items():
        if isinstance(held, Unknown):
            yield UnmovableView("not-read", group, "", -1, held.detail)
            continue
        if not any(tp.topic in counts for tp in held.value):
            yield UnmovableView(
                "no-positions", group, "", -1, f"it has committed nothing in {flow.source}: it would begin at the logs' start"
            )
            continue
        for topic, count in counts.items():
            for partition in range(count):
                if TopicPartition(topic, partition) not in held.value:
                    detail = f"nothing is committed in {flow.source}: a move lets the group begin at the log's start here"
                    yield UnmovableView("no-position", group, topic, partition, detail)


def _not_configured(coordinator: Coordinator) -> Iterator[UnmovableView]:
    """Yield the other groups that have positions on the unit's topics."""
    estate, flow = coordinator.estate, coordinator.flow
    source, unit = estate.clusters[flow.source], estate.unit
    until_s = estate.clock.monotonic_s() + LOOK_S
    groups = [group for group in source.group_ids() if group not in unit.groups]
    for number, group in enumerate(groups):
        if number >= GROUPS_ASKED_MAX or estate.clock.monotonic_s() > until_s:
            detail = f"{len(groups) - number} groups were not asked, this one is the first; {GROUPS_ASKED_MAX} are asked, for {LOOK_S:g} s"
            yield UnmovableView("not-read", group, "", -1, detail)
            return
        held = looking.positions(source, (group,), estate.clock.now_ms())[group]
        if isinstance(held, Unknown):
            yield UnmovableView("not-read", group, "", -1, held.detail)
            continue
        topics = sorted({tp.topic for tp in held.value} & set(unit.read_in(flow.source)))
        for topic in topics:
            count = sum(tp.topic == topic for tp in held.value)
            yield UnmovableView(
                "not-configured", group, topic, -1, f"it has positions on {count} partitions and is not in the configuration"
            )

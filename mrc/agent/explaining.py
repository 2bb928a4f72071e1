"""Why a position is answered as it is: the records on both sides, MM2's offset syncs around it, and what MM2 would have answered.

Everything is read anew and bounded; a side that cannot be read says so and hides nothing of the other. Nothing is changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mrc.agent import looking
from mrc.agent.coordinator import Coordinator
from mrc.agent.inspection import NOTHING, Spot, mm2_names, named, spots
from mrc.core.errors import MrcError
from mrc.core.model import Known, Offset, Reading, Record, Region, TopicPartition, Unknown, Value
from mrc.core.translation.fingerprint import fingerprint
from mrc.core.translation.sight import Sight
from mrc.core.translation.syncs import Mm2Answer, Sync, decode_sync, mm2_answer, neighbours
from mrc.core.views import ExplanationView, Mm2AnswerView, SideView, SyncsView, SyncView
from mrc.ports import COMMITTED, Cluster

SYNCS_MAX = 200_000
"""How many of the newest offsets of the syncs topic are read."""

_PAGE = 20_000
_NEIGHBOURS = 2


class ReadSyncs(Value, frozen=True):
    """The syncs topic as it was read: the syncs of each partition in the order in which they were written."""

    region: Region
    topic: str
    syncs: dict[TopicPartition, list[Sync]]
    unread: str


def explain(coordinator: Coordinator, group: str, topic: str, partition: int | None) -> Iterator[ExplanationView]:
    """See `Service.explain`.

    Raises:
        MrcError: ``UNKNOWN_GROUP``, ``UNKNOWN_TOPIC``, ``CAPTURE_BEHIND``.
    """
    unit = coordinator.estate.unit
    if not group:
        raise MrcError("BAD_REQUEST", "group is empty", where="group")
    chosen = [
        spot
        for spot in spots(coordinator, named(coordinator, group))
        if topic in ("", spot.source.topic) and partition in (None, spot.source.partition)
    ]
    if not chosen:
        wanted = f"{topic or 'any topic'}{'' if partition is None else f'-{partition}'}"
        raise MrcError(
            "UNKNOWN_TOPIC",
            f"there is no {wanted} here; there are: {', '.join(unit.read_in(coordinator.flow.source))}",
            where=str(coordinator.flow),
        )
    read = _read_syncs(coordinator)
    silent: dict[Region, Unknown] = {}
    for spot in chosen:
        yield _explain(coordinator, spot, read, silent)


def _explain(coordinator: Coordinator, spot: Spot, read: ReadSyncs, silent: dict[Region, Unknown]) -> ExplanationView:
    estate, flow = coordinator.estate, coordinator.flow
    now_ms = estate.clock.now_ms()
    sights = coordinator.capture.sights
    here = _look(coordinator, flow.source, spot.source, spot.source_offset(now_ms), sights.source, silent)
    there = _look(coordinator, flow.target, spot.target, spot.safe_offset(now_ms), sights.target, silent)
    syncs = read.syncs.get(spot.source, [])
    source_offset = spot.view.source_offset if spot.view else None
    return ExplanationView(
        group=spot.group,
        source=here.view(flow.source, spot.source),
        target=there.view(flow.target, spot.target),
        next_alike=_alike(here.next, there.next, stamped=spot.source.topic not in sights.source.unstamped),
        before_alike=_alike(here.before, there.before, stamped=spot.source.topic not in sights.source.unstamped),
        translation=spot.view.translation if spot.view else NOTHING,
        age_s=spot.age_s(now_ms),
        syncs=_syncs_view(read, syncs, source_offset),
        mm2=_mm2_view(coordinator, spot, read, mm2_answer(syncs, source_offset) if source_offset is not None else None),
    )


# ---------------------------------------------------------------- the records


class _Looked(Value, frozen=True):
    """One side's records around a position."""

    offset: Reading[float]
    before: tuple[Record, ...] = ()
    next: tuple[Record, ...] = ()
    unread: str = ""

    def view(self, region: Region, tp: TopicPartition) -> SideView:
        """Return what is shown of them."""
        before, following = tuple(map(looking.record_view, self.before)), tuple(map(looking.record_view, self.next))
        return SideView(region, tp.topic, tp.partition, self.offset, before, following, self.unread)


def _look(
    coordinator: Coordinator, region: Region, tp: TopicPartition, offset: Reading[float], sight: Sight, silent: dict[Region, Unknown]
) -> _Looked:
    """Read one side; a region that did not answer the observer, or once in this call, is not asked again."""
    if isinstance(offset, Unknown):
        return _Looked(offset, unread=offset.detail)
    seen = silent.get(region) or coordinator.observer.region(region).kafka
    if isinstance(seen, Unknown) and seen.reason != "not-looked-yet":
        return _Looked(offset, unread=seen.detail)
    estate = coordinator.estate
    found = looking.ask(lambda: looking.around(estate.clusters[region], tp, Offset(int(offset.value)), sight), estate.clock.now_ms())
    if isinstance(found, Unknown):
        silent[region] = found
        return _Looked(offset, unread=found.detail)
    return _Looked(offset, *found.value)


def _alike(here: tuple[Record, ...], there: tuple[Record, ...], *, stamped: bool) -> bool:
    return bool(here and there) and _print(here[0], stamped=stamped) == _print(there[0], stamped=stamped)


def _print(record: Record, *, stamped: bool) -> int:
    return fingerprint(record.timestamp_ms if stamped else None, record.key, record.value, record.headers)


# ---------------------------------------------------------------- what MM2 knows


def _read_syncs(coordinator: Coordinator) -> ReadSyncs:
    flow = coordinator.flow
    try:
        places = mm2_names(coordinator)
    except MrcError as error:
        if error.kind == "bug":
            raise
        return ReadSyncs(flow.target, "", {}, f"the connector's settings cannot be read: {error}")
    region = flow.target if places.syncs_in == "target" else flow.source
    seen = coordinator.observer.region(region).kafka
    if isinstance(seen, Unknown) and seen.reason != "not-looked-yet":
        return ReadSyncs(region, places.syncs, {}, seen.detail)
    try:
        return ReadSyncs(region, places.syncs, _syncs_of(coordinator.estate.clusters[region], places.syncs), "")
    except MrcError as error:
        if error.kind == "bug":
            raise
        return ReadSyncs(region, places.syncs, {}, str(error))


def _syncs_of(cluster: Cluster, topic: str) -> dict[TopicPartition, list[Sync]]:
    """Read the newest part of the syncs topic. Raises ``UNKNOWN_TOPIC`` where there is none."""
    if not cluster.topics([topic]):
        raise MrcError("UNKNOWN_TOPIC", f"there is no topic {topic}: MirrorMaker has written no offset sync yet, or elsewhere")
    tp = TopicPartition(topic, 0)
    end = cluster.ends([tp], COMMITTED.isolation)[tp]
    at = Offset(max(cluster.starts([tp])[tp], end - SYNCS_MAX))
    found: dict[TopicPartition, list[Sync]] = {}
    while at < end:
        page = cluster.records(tp, at, _PAGE)
        for record in page:
            decoded = decode_sync(record.key, record.value)
            if decoded is not None:
                found.setdefault(decoded[0], []).append(decoded[1])
        if not page:
            break
        at = Offset(page[-1].offset + 1)
    return found


def _syncs_view(read: ReadSyncs, syncs: Sequence[Sync], offset: int | None) -> SyncsView:
    around = neighbours(syncs, offset if offset is not None else 0, _NEIGHBOURS)
    below, above = (tuple(SyncView(*sync) for sync in some) for some in around)
    return SyncsView(read.region, read.topic, below, above, len(syncs), read.unread)


def _mm2_view(coordinator: Coordinator, spot: Spot, read: ReadSyncs, answer: Mm2Answer | None) -> Mm2AnswerView:
    """Return MM2's answer, and the records between it and mrc's."""
    now_ms = coordinator.estate.clock.now_ms()
    if answer is None or read.unread:
        why = Unknown("not-read", read.unread or NOTHING.detail, now_ms)
        return Mm2AnswerView(why, (), 0, why, why)
    if answer.offset is None or answer.sync is None:
        none = Unknown("no-sync", f"none of the {answer.kept} syncs that it keeps lies at or below the position: it writes nothing", now_ms)
        return Mm2AnswerView(none, (), answer.kept, none, none)
    mine = spot.safe
    if mine is None:
        why = Unknown("no-answer", "mrc has no answer to compare with", now_ms)
        return Mm2AnswerView(Known(float(answer.offset), now_ms), (SyncView(*answer.sync),), answer.kept, why, why)
    return Mm2AnswerView(
        offset=Known(float(answer.offset), now_ms),
        sync=(SyncView(*answer.sync),),
        kept=answer.kept,
        rereads=_count(coordinator, spot.target, answer.offset, mine.offset),
        skips=_count(coordinator, spot.target, mine.offset, answer.offset),
    )


def _count(coordinator: Coordinator, tp: TopicPartition, low: int, high: int) -> Reading[float]:
    estate = coordinator.estate
    cluster, sight = estate.clusters[coordinator.flow.target], coordinator.capture.sights.target
    return looking.between(cluster, tp, (low, high), sight, estate.clock.now_ms())

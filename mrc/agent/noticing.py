"""What the capture of a flow notices that an operator should know: records not copied, copies deleted, positions without an answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mrc.agent.alignment import Alignment
from mrc.core.inventory import Unit
from mrc.core.model import Flow, GroupId, Offset, TopicPartition
from mrc.core.translation.checkpoint import Checkpoint, CheckpointKey
from mrc.core.translation.offset_map import REASONS, Unanswerable
from mrc.core.views import FindingView

LASTING = ("before-map", "never-copied", "records-changed")
"""Reasons that do not pass by themselves."""

FORBID_PLANNED = ("MIRROR_LACKS_RECORDS", "COPIES_DELETED", "HEADERS_CHANGED", "TIMESTAMPS_CHANGED", "RECORDS_CHANGED")
"""Findings with which a planned move would lose records, or could not tell: it compares both sides' records."""


def lacking(alignment: Alignment) -> list[FindingView]:
    """Return what the flow has passed without copying it."""
    with alignment.lock:
        holes = {tp: list(pair.known.lacking) for tp, pair in sorted(alignment.pairs.items()) if pair.known.lacking}
    flow = alignment.flow
    return [
        FindingView(
            "MIRROR_LACKS_RECORDS",
            "warning",
            f"{sum(hole.records for hole in found):,} records of {tp} in {flow.source}, the first at offset {found[0].begin}, the last "
            f"before {found[-1].end}, were not copied to {flow.target}",
            str(tp),
        )
        for tp, found in holes.items()
    ]


def deleted(
    alignment: Alignment,
    positions: Mapping[tuple[GroupId, TopicPartition], int],
    starts: tuple[Mapping[TopicPartition, Offset], Mapping[TopicPartition, Offset]],
) -> list[FindingView]:
    """Return what groups at these positions in the source would skip, because the target has deleted its copies.

    Args:
        starts: of the source's logs and of the target's. What the source has deleted too, a group has lost there as well.
    """
    flow, found = alignment.flow, []
    with alignment.lock:
        missed = [
            (group, tp, position, pair.deleted(max(position, starts[0].get(tp, 0)), starts[1][pair.target]))
            for (group, tp), position in positions.items()
            if (pair := alignment.pairs.get(tp)) is not None and pair.target in starts[1]
        ]
    for group, tp, position, gone in sorted(missed):
        if gone.records:
            message = (
                f"{group} on {tp} at {position} would skip up to {gone.records:,} records that {flow.source} holds and "
                f"{flow.target} has deleted: let it read on in {flow.source} to offset {gone.end}, or reset it to there"
            )
            found.append(FindingView("COPIES_DELETED", "warning", message, str(tp)))
    return found


def unanswered(checkpoints: Mapping[CheckpointKey, Checkpoint]) -> list[FindingView]:
    """Return, per topic and lasting reason, which positions have no answer."""
    found: dict[tuple[str, str], list[str]] = {}
    for key, checkpoint in sorted(checkpoints.items(), key=by_group):
        answer = checkpoint.translation
        if isinstance(answer, Unanswerable) and answer.reason in LASTING:
            place = f"{key.group} on partition {key.partition} at {checkpoint.source_offset}"
            found.setdefault((key.topic, answer.reason), []).append(place)
    return [
        FindingView("POSITIONS_UNKNOWN", "warning", f"no answer for {_some(places)}: {REASONS[reason]}", topic)
        for (topic, reason), places in found.items()
    ]


def read_in_part(
    unit: Unit, flow: Flow, records: Mapping[str, int], committed: Iterable[tuple[GroupId, TopicPartition]]
) -> list[FindingView]:
    """Return which groups read a topic and not the one with the other region's records, where there are some.

    Only the default policy has such topics. mrc sees what groups have committed, not what they subscribe to.

    Args:
        records: how many offsets the topics of the flow's source hold.
        committed: where groups have positions in the source.
    """
    names = unit.counterparts(flow.source)
    held: dict[GroupId, set[str]] = {}
    for group, tp in committed:
        held.setdefault(group, set()).add(tp.topic)
    return [
        FindingView(
            "COPIES_NOT_READ",
            "warning",
            f"{group} has positions on {read} in {flow.source} and none on {unread}, which holds {records[unread]:,} offsets: it must "
            f"read both; a move lets it begin {names[unread]} in {flow.target} at the log's start",
            unread,
        )
        for group in sorted(held.keys() & set(unit.groups))
        for pair in zip(unit.topics, unit.copies(flow.source), strict=False)
        for read, unread in (pair, pair[::-1])
        if read in held[group] and unread not in held[group] and records.get(unread)
    ]


def by_group(item: tuple[CheckpointKey, Checkpoint]) -> tuple[str, str, int]:
    """The order in which checkpoints are shown."""
    return item[0].group, item[0].topic, item[0].partition


def _some(places: list[str]) -> str:
    """Name the first few."""
    more = f" and {len(places) - 3} more" if len(places) > 3 else ""
    return ", ".join(places[:3]) + more

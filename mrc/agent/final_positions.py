"""Every group's position in the target, now that the flow has ended: from what it has committed, once both logs are read to their ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from mrc.agent.alignment import Alignment
from mrc.agent.noticing import deleted
from mrc.core.errors import MrcError
from mrc.core.failover.findings import spelt
from mrc.core.failover.measured import Rereads, rereads
from mrc.core.inventory import Position
from mrc.core.model import GroupId, Offset, TopicPartition
from mrc.core.translation.checkpoint import Checkpoint
from mrc.core.translation.offset_map import Bounded, Exact
from mrc.core.views import FindingView

Key = tuple[GroupId, TopicPartition]


class Committed(NamedTuple):
    """A group's position in the source, and what was captured of it."""

    position: Position
    checkpoint: Checkpoint | None = None

    def floor(self, target_id: str) -> int:
        """Return the last safe offset in the target's topic with this id; -1 where there is none."""
        return self.checkpoint.floor_in(target_id) if self.checkpoint else -1


class _Answers(NamedTuple):
    """What was found in one look.

    Attributes:
        pending: what is not known yet; then the rest says nothing.
        positions: of every group on the target's partitions; absent where it begins at the log's start.
        again: how many records each of a group's positions repeats at most; None: nobody knows.
    """

    pending: list[str]
    positions: dict[GroupId, dict[TopicPartition, Position]]
    again: dict[GroupId, list[int | None]]


def final_positions(
    alignment: Alignment, captured: Callable[[], Mapping[Key, Committed] | None], *, source_alive: bool, deadline_s: float
) -> tuple[dict[GroupId, dict[TopicPartition, Position]], Rereads]:
    """Return the target position of every group on every partition, and what groups read again at most.

    Args:
        captured: what was captured of a source that may be dead; None while the capture does not run.
        source_alive: whether groups are asked in the source.

    Raises:
        MrcError: ``NOT_VERIFIED`` when the answer is not ready by the deadline, or groups would skip what the target has deleted.
    """
    live = _live_positions(alignment) if source_alive else None
    found = _Answers([], {}, {})

    def ready() -> bool:
        nonlocal found
        found = _look(alignment, live if live is not None else captured(), source_alive=source_alive)
        return not found.pending

    if not alignment.estate.wait_until(ready, deadline_s):
        message = f"positions are not ready: {'; '.join(found.pending[:5])}"
        raise MrcError("NOT_VERIFIED", message, where=str(alignment.flow), retryable=True)
    return found.positions, rereads(found.again)


def _look(alignment: Alignment, positions: Mapping[Key, Committed] | None, *, source_alive: bool) -> _Answers:
    loads, found = alignment.loads, _Answers([], {}, {})
    if positions is None or not alignment.loaded:
        found.pending.append("the capture is starting")
        return found
    if not _read_to_the_end(alignment, both=source_alive):
        found.pending.append("the logs are not read to their ends yet")
        return found
    if source_alive and (gone := _deleted_now(alignment, positions)):
        # Nobody can answer for these, however long is waited.
        raise MrcError("NOT_VERIFIED", spelt(gone), where=str(alignment.flow))
    with alignment.lock:  # once for all: taken for each it would be waited for thousands of times
        answers = {at: _final(alignment, at[1], known, final=not source_alive) for at, known in positions.items()}
    for (group, tp), known in positions.items():
        answer = answers[group, tp]
        if answer is None:
            found.pending.append(f"{group} on {tp} at {known.position.offset}")
            continue
        found.again.setdefault(group, []).append(answer[2])
        if answer[1] >= 0:
            found.positions.setdefault(group, {})[answer[0]] = Position(Offset(answer[1]), known.position.metadata)
    if alignment.loads != loads or not alignment.loaded:
        found.pending.append("the maps have been loaded anew")
    return found


def _live_positions(alignment: Alignment) -> dict[Key, Committed]:
    source = alignment.estate.clusters[alignment.flow.source]
    return {
        (group, tp): Committed(position)
        for group, positions in source.positions_of(alignment.estate.unit.groups).items()
        for tp, position in positions.items()
        if tp.topic in alignment.names
    }


def _read_to_the_end(alignment: Alignment, *, both: bool) -> bool:
    """Whether the target has been read to its end: only then is a copy that was made also known.

    With ``both`` the source too, at least once: only then is it known which records have twins.
    """
    pairs = list(alignment.pairs.values())
    if not pairs:
        return not both  # of a dead source nothing was stored: what there is no map of stands on its checkpoints
    ends = alignment.estate.clusters[alignment.flow.target].ends([p.target for p in pairs], "read_committed")
    with alignment.lock:
        if both:
            return all((p.target_position >= ends[p.target] or p.came_back) and p.source_read_through for p in pairs)
        # Without the source a full window cannot be decided any more: answers stay behind the last pair.
        return all(p.target_position >= ends[p.target] or not p.wants_target for p in pairs)


def _deleted_now(alignment: Alignment, positions: Mapping[Key, Committed]) -> list[FindingView]:
    """Return what groups would skip by what both logs hold now. Raises world errors."""
    pairs, clusters, flow = list(alignment.pairs.values()), alignment.estate.clusters, alignment.flow
    source, target = clusters[flow.source], clusters[flow.target]
    starts = source.starts([pair.source for pair in pairs]), target.starts([pair.target for pair in pairs])
    return deleted(alignment, {at: one.position.offset for at, one in positions.items()}, starts)


def _final(alignment: Alignment, tp: TopicPartition, known: Committed, *, final: bool) -> tuple[TopicPartition, int, int | None] | None:
    """Return the target partition, the offset (-1: begin at the log's start) and how many records repeat at most (None: nobody knows).

    None while there is no answer yet. The caller holds the alignment's lock.
    """
    pair = alignment.pairs.get(tp)
    target_id = alignment.target_ids.get(tp.topic, "")
    if pair is None:
        return (TopicPartition(alignment.names[tp.topic], tp.partition), known.floor(target_id), None) if final else None
    answer = pair.to_target(known.position.offset, final=final)
    if isinstance(answer, Exact | Bounded):
        return pair.target, answer.offset, answer.repeats_max if isinstance(answer, Bounded) else 0
    return (pair.target, known.floor(target_id), None) if final else None

"""Groups' positions are translated, committed in the target, read back and translated anew."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence

from mrc.agent import draining
from mrc.agent.work import Work
from mrc.core.errors import InvariantViolation, MrcError
from mrc.core.failover.findings import spelt
from mrc.core.inventory import Position
from mrc.core.model import GroupId, Offset, TopicPartition, encode

COMMITTED_AT_ONCE = 25
"""Groups whose positions are committed between two looks at the lease."""


def move_positions(work: Work) -> dict[str, str]:
    """Commit every group's position on every partition of the target. Raises ``NOT_VERIFIED``."""
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


def positions_moved(work: Work) -> str:
    """Read back, and translate anew: both must agree with what was committed. What got past the fence is found here, not too late."""
    target = work.estate.clusters[work.plan.target]
    wanted: dict[GroupId, dict[TopicPartition, Position]] = {}
    found: dict[GroupId, dict[TopicPartition, Position]] = {}
    looks = [lambda: wanted.update(_wanted_positions(work)), lambda: found.update(target.positions_of(work.estate.unit.groups))]
    if work.plan.planned:
        looks.append(lambda: draining.require_nothing_new(work))
    work.estate.together(looks)
    for group, positions in wanted.items():
        wrong = [str(tp) for tp, position in positions.items() if found[group].get(tp) != position]
        if wrong:
            raise MrcError("NOT_VERIFIED", f"group {group} has other positions on {', '.join(wrong)}", where=str(work.plan.target))
    return f"{sum(map(len, wanted.values()))} positions of {len(wanted)} groups read back, hash {_hash(wanted)}"

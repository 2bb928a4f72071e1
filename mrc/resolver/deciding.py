"""A person's decision about an open conflict: given in one region, written among its marks, so every region hears it at the same place.

A decision takes its place in the order of events by a clock that is later than those of the marks before it in its region's log. So it is
written with the clock of the last mark and some seconds more. When a mark of that clock gets there first, the decision counts nowhere: it
is seen in the log and given again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec

from mrc.core.conflict.entity import Decision
from mrc.core.conflict.headers import ID
from mrc.core.conflict.marks import Mark
from mrc.core.errors import MrcError
from mrc.core.model import Offset, Region, TopicPartition, Value, decode, encode
from mrc.ports import Arrived, Clock, Logs, Span
from mrc.resolver.audit import legible
from mrc.resolver.kinds import Topics
from mrc.resolver.writing import DETAIL, REASON, ConflictRecord

DECISION_KEY = b"decision"
"""The record key by which a decision is told from a mark."""

LEAD_MS = 3_000
"""How far a decision's clock is ahead of the last mark's: so long it may take until it is written."""

TRIES_MAX = 5
SEEN_TRIES_MAX = 50
SEEN_EVERY_S = 0.1
ACTOR_CHARACTERS_MAX = 128
REASON_CHARACTERS_MAX = 1024
LATELY_RECORDS = 5_000
"""So many of the last marks and decisions are read, some forty minutes' worth, for a decision that is given again."""

Append = Callable[[str, int, bytes, bytes], None]
"""Writes a record to a partition of a topic: topic, partition, key, value."""


class Answer(Value, frozen=True):
    """What has become of a decision in the region where it was given.

    Attributes:
        state: ``decided``: it stands; ``refused``: it comes to nothing; ``waits``: its turn has not come.
        why: it was refused.
        conflict: as it was closed.
    """

    state: Literal["decided", "refused", "waits"]
    decision: Decision
    why: str = ""
    conflict: ConflictRecord | None = None


def chosen(one: ConflictRecord, winner: str) -> str:
    """Return the id of the event that ``winner`` names, itself or by its region.

    Raises:
        MrcError: ``CONFLICT_CLOSED`` where nobody is asked; ``BAD_REQUEST`` where it names no event of the conflict.
    """
    if not one.open:
        raise MrcError("CONFLICT_CLOSED", f"conflict {one.id} is not open: {closed(one)}")
    for side in one.candidates:
        if winner in (side.id, side.origin):
            return side.id
    named = ", ".join(f"{side.id} ({side.origin})" for side in one.candidates)
    raise MrcError("BAD_REQUEST", f"{winner} is no event of conflict {one.id}; there are {named}")


def closed(one: ConflictRecord) -> str:
    """Return how a conflict that is not open came to that, as a sentence's end."""
    if one.decision is not None:
        why = f": {one.decision.reason}" if one.decision.reason else ""
        return f"{one.decision.actor} decided it in {one.decision.region} for {one.winner}{why}"
    if one.closed == "time":
        return f"nobody decided it in time, and {one.winner} stands"
    if one.closed == "superseded":
        return "later events left nothing to decide"
    return f"rule {one.rule} has decided it, for {one.winner}"


class Desk:
    """Where decisions are given in one region.

    Args:
        logs: of the region.
        append: writes there.
        here: the region.
        clock: for waiting, and for when it was given.
    """

    def __init__(self, logs: Logs, append: Append, here: Region, clock: Clock) -> None:
        self._logs = logs
        self._append = append
        self._here = here
        self._clock = clock

    def ends(self, names: Sequence[Topics]) -> dict[TopicPartition, Offset]:
        """Return behind what the answers to decisions come from now on."""
        return {
            tp: span.end for tp, span in self._logs.spans([name for one in names for name in (one.conflicts, one.dead_letters)]).items()
        }

    def give(
        self,
        names: Topics,
        partition: int,
        one: ConflictRecord,
        winner: str,
        id: str,
        actor: str,
        reason: str,
        wait_s: float,
        since: Mapping[TopicPartition, Offset],
    ) -> Answer:
        """Give a decision, and wait for what becomes of it. One given lately (`LATELY_RECORDS`) under the same id is not given again.

        Args:
            names: the topics of the conflict's kind in this region.
            partition: where the conflict stands.
            one: the open conflict.
            winner: id of the event that shall stand, see `chosen`.
            id: of the decision, unique.
            actor, reason: who decides, and why.
            wait_s: how long to wait; 0: not at all.
            since: `ends` from before the conflict was looked up: one that was given before may have been answered since.

        Raises:
            MrcError: ``RESOLVER_SILENT`` where marks overtake the decision again and again, or there is none; ``TOKEN_REUSED`` where the id
                is that of another decision; world errors.
        """
        begin = {TopicPartition(name, partition): since[TopicPartition(name, partition)] for name in (names.conflicts, names.dead_letters)}
        tp = TopicPartition(names.own_marks, partition)
        for number in range(TRIES_MAX):
            # Before the last mark is looked for: none may come unseen between the two.
            end = self._logs.spans([tp.topic])[tp].end
            last_ms, given = self._last(tp)
            before = next((said for said in given if is_of(said.id, id)), None)
            if before is not None:
                if (before.conflict, before.winner) != (one.id, winner):
                    raise MrcError("TOKEN_REUSED", f"{id} has decided conflict {before.conflict} for {before.winner} before", where=str(tp))
                return self._wait(begin, before, wait_s)
            said = Decision(
                f"{id}.{number}" if number else id,
                one.key,
                one.id,
                winner,
                last_ms + LEAD_MS,
                self._here,
                actor,
                reason,
                self._clock.now_ms(),
            )
            self._append(tp.topic, tp.partition, DECISION_KEY, encode(said))
            if self._in_time(tp, end, said):
                return self._wait(begin, said, wait_s)
        raise MrcError("RESOLVER_SILENT", f"marks came before the decision {TRIES_MAX} times; nothing was decided", where=str(tp))

    def _last(self, tp: TopicPartition) -> tuple[int, Sequence[Decision]]:
        """Return the latest clock of the last marks, and those decisions among them that no mark has overtaken."""
        span = self._logs.spans([tp.topic])[tp]
        begin = Offset(max(span.begin, span.end - LATELY_RECORDS))
        last_ms, given = -1, []
        for batch in self._logs.read({tp: Span(begin, span.end)}):
            for record in batch:
                mark, said = mark_of(record), decision_of(record)
                if mark is not None:
                    last_ms = max(last_ms, mark.clock_ms)
                elif said is not None and said.clock_ms > last_ms:
                    given.append(said)
        if last_ms < 0:
            raise MrcError("RESOLVER_SILENT", "there is no mark of this region's resolver; nothing was decided", where=str(tp))
        return last_ms, given

    def _in_time(self, tp: TopicPartition, begin: Offset, said: Decision) -> bool:
        """Whether no mark of the decision's clock came before it."""
        for _ in range(SEEN_TRIES_MAX):
            for batch in self._logs.read({tp: Span(begin, self._logs.spans([tp.topic])[tp].end)}):
                for record in batch:
                    if record.key == DECISION_KEY and record.value == encode(said):
                        return True
                    mark = mark_of(record)
                    if mark is not None and mark.clock_ms >= said.clock_ms:
                        return False
            self._clock.sleep(SEEN_EVERY_S)
        raise MrcError("RESOLVER_SILENT", "a decision that was written cannot be read", where=str(tp), retryable=True)

    def _wait(self, begin: dict[TopicPartition, Offset], said: Decision, wait_s: float) -> Answer:
        until_s = self._clock.monotonic_s() + wait_s
        for batch in self._logs.follow(begin):
            for record in batch:
                answer = _answer(record, said)
                if answer is not None:
                    return answer
            if self._clock.monotonic_s() >= until_s:
                break
            self._clock.sleep(0)
        return Answer("waits", said)


def mark_of(record: Arrived) -> Mark | None:
    """Return the mark that a record among the marks is; None for a decision, and for what is neither: resolvers dead-letter it."""
    try:
        return None if record.key == DECISION_KEY else decode(record.value or b"", Mark)
    except msgspec.MsgspecError:
        return None


def decision_of(record: Arrived) -> Decision | None:
    """Return the decision that a record among the marks is; None for what is none."""
    try:
        return decode(record.value or b"", Decision) if record.key == DECISION_KEY else None
    except msgspec.MsgspecError:
        return None


def decided_by(one: ConflictRecord, id: str) -> Decision | None:
    """Return the decision of this id, where the conflict was closed by it; its clock is not kept, and is 0."""
    said = one.decision
    if said is None or not is_of(said.id, id):
        return None
    return Decision(said.id, one.key, one.id, one.winner, 0, said.region, said.actor, said.reason, said.at_ms)


def is_of(given: str, id: str) -> bool:
    """Whether ``given`` is the id of a decision, or what it has where it had to be given again."""
    return given == id or re.fullmatch(re.escape(id) + r"\.[1-9]", given) is not None


def _answer(record: Arrived, said: Decision) -> Answer | None:
    """Return what a record of the conflicts or the dead letters says of a decision; None: nothing."""
    headers = dict(record.headers)
    if REASON in headers:
        return Answer("refused", said, legible(headers.get(DETAIL))) if legible(headers.get(ID)) == said.id else None
    try:
        one = decode(record.value or b"", ConflictRecord)
    except msgspec.MsgspecError:
        return None
    return Answer("decided", said, "", one) if one.decision is not None and one.decision.id == said.id else None

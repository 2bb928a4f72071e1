"""A region's docket, asked of its agents: for machines that reach agents and no Kafka."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from mrc.control.client import CALL_S, WATCH_S, Client
from mrc.control.conflicts import WAIT_S_MAX, heard, heard_answer, heard_news
from mrc.core.errors import MrcError
from mrc.core.model import Region
from mrc.resolver.audit import Filter, News, Stats
from mrc.resolver.deciding import Answer
from mrc.resolver.writing import ConflictRecord

READ_S = 120.0
"""Deadline of a call that reads logs."""

AGAIN_EVERY_S = 1.0
AGAIN_MAX = 60
"""How often, and how many times in a row, a stream that broke is begun again where it was; its place may still be taken."""


class AgentsDocket:
    """The methods of `mrc.resolver.docket.Docket`; they also raise ``AGENT_UNREACHABLE``, ``AGENT_BUSY`` and ``TOO_MUCH_TO_READ``.

    Args:
        client: asks the agents.
        here: the region.
        replication_group: its name; empty: the only one.
        topic: whose conflicts; empty: of all.
    """

    def __init__(self, client: Client, here: Region, replication_group: str, topic: str) -> None:
        self._client = client
        self.here = here
        self._fields: dict[str, Any] = {"replication_group": replication_group, "topic": topic}

    def newest(self, wanted: Filter, limit: int) -> list[ConflictRecord]:
        """Return the conflicts that were decided last, the latest event's first."""
        rows = self._client.stream_region(self.here, "ListConflicts", deadline_s=READ_S, limit=limit, **self._wanted(wanted))
        return [heard(one) for one in rows]

    def find(self, id: str) -> ConflictRecord | None:
        """Return the conflict of this id, None where the region has not written it."""
        try:
            return heard(self._client.ask_region(self.here, "GetConflict", deadline_s=READ_S, conflict_id=id, **self._fields))
        except MrcError as error:
            if error.code != "UNKNOWN_CONFLICT":
                raise
            return None

    def follow(self, wanted: Filter, cursor: str = "") -> Iterator[News]:
        """Yield what comes, for ever; a stream that breaks is begun again where it was, with another agent of the region if need be."""
        failures = 0
        while True:
            try:
                fields = {**self._wanted(wanted), "cursor": cursor}
                for one in self._client.stream_region(self.here, "TailConflicts", deadline_s=WATCH_S, **fields):
                    news = heard_news(one)
                    failures, cursor = 0, news.cursor
                    yield news
            except MrcError as error:
                failures += 1
                if not error.retryable or not cursor or failures > AGAIN_MAX:
                    raise
                time.sleep(AGAIN_EVERY_S)

    def stats(self, since_ms: int | None) -> Stats:
        """Count what the region has written."""
        found: Stats = self._client.ask_region(self.here, "CountConflicts", deadline_s=READ_S, since_ms=_since(since_ms), **self._fields)
        return found

    def decide(self, id: str, winner: str, decision: str, actor: str, reason: str, wait_s: float) -> Answer:
        """Let an event of an open conflict stand; of ``wait_s`` no more is waited than an agent waits. An empty ``actor``: the client's."""
        wait_s = min(wait_s, WAIT_S_MAX)
        return heard_answer(
            self._client.ask_region(
                self.here,
                "ResolveConflict",
                deadline_s=READ_S + wait_s + CALL_S,
                conflict_id=id,
                winner=winner,
                token=decision,
                actor=actor,
                reason=reason,
                wait_s=wait_s,
                **self._fields,
            )
        )

    def _wanted(self, wanted: Filter) -> dict[str, Any]:
        filters = {"entity": wanted.entity, "rule": wanted.rule, "outcome": wanted.outcome, "since_ms": _since(wanted.since_ms)}
        return {**self._fields, **filters}


def _since(at_ms: int | None) -> int:
    """Return a time as requests have it, where 0 is none."""
    return 0 if at_ms is None else max(1, at_ms)

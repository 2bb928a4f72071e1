"""What is kept of an execution that has ended, in a compacted topic of every region: readable when ZooKeeper is not."""

from __future__ import annotations

from typing import Literal

import msgspec

from mrc.core.errors import MrcError
from mrc.core.failover.actions import ACTIONS
from mrc.core.failover.execution import Entry, Run, replay
from mrc.core.failover.plan import Plan
from mrc.core.model import Written, decode, encode

TOPIC = "mrc.executions.internal"
"""Its name ends as topics do that MirrorMaker never copies: each region's leading agent writes its own."""


class Archived(Written, frozen=True):
    """One execution, whole: its plan, who asked for it and why, and its journal from the first entry to the last."""

    plan: Plan
    entries: tuple[Entry, ...]
    version: Literal[1] = 1

    def run(self) -> Run:
        """Return the state in which it ended.

        Raises:
            MrcError: ``VERSION_MISMATCH`` for an action that this version does not know.
            InvariantViolation: for a journal that mrc could not have written.
        """
        strange = [step.action for step in self.plan.steps if step.action not in ACTIONS]
        if strange:
            raise MrcError("VERSION_MISMATCH", f"action {strange[0]} is not known here", where=self.plan.id)
        return replay(self.plan, self.entries)


def key(replication_group: str, execution: str) -> bytes:
    """Return the key of an execution's record."""
    return f"{replication_group}/{execution}".encode()


def decode_archive(replication_group: str, stored: dict[bytes, bytes]) -> tuple[dict[str, Archived], list[str]]:
    """Return a replication group's executions by id, oldest first, and the ids of those whose record cannot be read."""
    found: dict[str, Archived] = {}
    garbled: list[str] = []
    prefix = key(replication_group, "")
    for raw_key, raw in sorted(stored.items()):
        if not raw_key.startswith(prefix):
            continue
        id = raw_key.removeprefix(prefix).decode(errors="replace")
        try:
            found[id] = decode(raw, Archived)
        except (msgspec.DecodeError, msgspec.ValidationError):
            garbled.append(id)
    return found, garbled


def encode_archived(one: Archived) -> tuple[bytes, bytes]:
    """Return the record's key and value."""
    return key(one.plan.replication_group, one.plan.id), encode(one)

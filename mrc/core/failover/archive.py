"""What is kept of an execution that has ended, in a compacted topic of every region: readable when ZooKeeper is not."""

from __future__ import annotations

from typing import Literal

import msgspec

from mrc.core.errors import MrcError
from mrc.core.failover.actions import ACTIONS
from mrc.core.failover.execution import Entry, Run, replay
from mrc.core.failover.measured import Measured
from mrc.core.failover.plan import Plan
from mrc.core.model import Written, decode, encode

TOPIC = "mrc.executions.internal"
"""Its name ends as topics do that MirrorMaker never copies: each region's leading agent writes its own."""

PIECE_BYTES_MAX = 500_000
"""A longer execution takes several records: Kafka's clients and topics take 1 MB where nothing else is configured."""


class Archived(Written, frozen=True):
    """One execution, whole: its plan, who asked for it and why, and its journal from the first entry to the last.

    Attributes:
        measured: lag, throughput and findings, where they were recorded.
    """

    plan: Plan
    entries: tuple[Entry, ...]
    measured: Measured | None = None
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
    """Return the key of an execution's record; of its first where it takes several. Those that follow have ``/1``, ``/2``... behind it."""
    return f"{replication_group}/{execution}".encode()


def decode_archive(replication_group: str, stored: dict[bytes, bytes]) -> tuple[dict[str, Archived], list[str]]:
    """Return a replication group's executions by id, oldest first, and the ids of those whose record cannot be read.

    Pieces without a first one are an execution that somebody has begun to write: it is not there yet.
    """
    found: dict[str, Archived] = {}
    garbled: list[str] = []
    prefix = key(replication_group, "")
    for raw_key, first in sorted(stored.items()):
        if not raw_key.startswith(prefix) or b"/" in raw_key.removeprefix(prefix):
            continue
        id = raw_key.removeprefix(prefix).decode(errors="replace")
        pieces = [first]
        while (piece := stored.get(b"%b/%d" % (raw_key, len(pieces)))) is not None:
            pieces.append(piece)
        try:
            found[id] = decode(b"".join(pieces), Archived)
        except (msgspec.DecodeError, msgspec.ValidationError):
            garbled.append(id)
    return found, garbled


def encode_archived(one: Archived) -> list[tuple[bytes, bytes]]:
    """Return keys and values of its records in the order in which they have to be written: the first one last, with which it is there."""
    whole, first = encode(one), key(one.plan.replication_group, one.plan.id)
    pieces = [whole[begin : begin + PIECE_BYTES_MAX] for begin in range(0, len(whole), PIECE_BYTES_MAX)]
    return [*((b"%b/%d" % (first, number), piece) for number, piece in enumerate(pieces) if number), (first, pieces[0])]

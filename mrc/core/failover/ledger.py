"""The divergence ledger: what a failover left behind in the old region, per partition.

Written at the failover, when only the mirror can be read (*open*): the last mirrored record of each partition and where the
mirror ended. Completed when the region is back (*listed*): the mirrored record is found there, and everything after it up
to the log's end is divergent. The reversed flow appends behind it.

Under the default policy nothing diverges: the flow out of the old region goes on where it was, and copies the same records when
the region is back. They are *late*: listed then, and *copied* once the flow has passed the last of them.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Literal

import msgspec

from mrc.core.model import Offset, Region, Written


class Tail(Written, frozen=True):
    """One partition's end of mirroring.

    Attributes:
        mirror_end: the target's log end when the flow had ended; the target's own records begin there.
        last_source: offset in the source of the last record that is known to be mirrored; -1 when none is known.
        last_fingerprint: of the last visible record of the mirror, 0 when the mirror is empty.
        last_timestamp_ms: of the same record; 0 when the mirror is empty.
        window: fingerprints of the last visible records of the mirror, the last one at the end; empty in entries of older agents.
        begin: first divergent, or late, offset in the source; -1 while open.
        end: the source's log end when it had been fenced again; -1 while open.
        records: visible records in between; -1 while open.
    """

    topic: str
    partition: int
    mirror_end: Offset
    last_source: int
    last_fingerprint: int
    last_timestamp_ms: int
    begin: int = -1
    end: int = -1
    records: int = -1
    window: tuple[int, ...] = ()


WINDOW = 16
"""How many of the mirror's last records are looked for in the returned log: more than any run of identical ones that is likely."""


class SupersededRecord(Written, frozen=True):
    """A divergent record that stays behind a newer one: its offset in the old log, and where the record stands in the open region."""

    offset: int
    by_partition: int
    by_offset: int


SUPERSEDED_TOLD = 5
"""How many superseded records of a partition are told one by one; the notes hold all."""


class Account(Written, frozen=True):
    """What became of one partition's divergent records; see `mrc.core.failover.divergence`.

    Attributes:
        divergent: as listed.
        exported: as counted in the recovered topic.
        emitted: written again to the topic.
        found: of the emitted, as counted in the active region's topic.
        superseded: left behind newer writes of their entities, each with the record that stands in its place.
        quarantined: in the recovered topic only.
        overtaken: of the emitted, those whose entity was written again after the stated offset.
        superseded_by: the first of the superseded, in offset order, at most `SUPERSEDED_TOLD`.
    """

    topic: str
    partition: int
    divergent: int
    exported: int
    emitted: int
    superseded: int
    quarantined: int
    found: int
    overtaken: int = 0
    superseded_by: tuple[SupersededRecord, ...] = ()

    @property
    def unexplained(self) -> int:
        """Records of which nobody knows what became of them; less than 0: more was done than there was."""
        return self.divergent - self.emitted - self.superseded - self.quarantined

    @property
    def balanced(self) -> bool:
        """Whether every record was exported once and has one fate, and every re-emitted one is in the topic once."""
        return self.exported == self.divergent and self.unexplained == 0 and self.found == self.emitted


class Ledger(Written, frozen=True):
    """One failover's ledger entry.

    Attributes:
        region: the old region, whose tails these are.
        execution: the failover.
        state: ``open`` until the region is back, then ``listed``; ``renewed`` when the log that its places are in was made anew; ``lost``
            when that was done before its records were accounted for: they are gone. Under the default policy ``late``, then ``copied``:
            the target has them by the flow. ``copied`` too when the target's log was made anew from theirs before they were accounted for.
        tails: without those of topics that were made anew since, where others stay.
        topic_ids: of the source's topics, as last seen; a topic that has another one was made anew. Empty where nobody knows.
        target_topic_ids: the same of the target's, under the names in the source; where mrc resolves, in it, what it has taken since.
        accounts: per partition with divergent records, what became of them, once every one has a fate; the sums match.
    """

    id: str
    region: Region
    target: Region
    execution: str
    at_ms: int
    state: Literal["open", "listed", "renewed", "lost", "late", "copied"]
    tails: tuple[Tail, ...]
    topic_ids: dict[str, str] = {}
    accounts: tuple[Account, ...] = ()
    target_topic_ids: dict[str, str] = {}
    version: Literal[1] = 1

    @property
    def divergent(self) -> int:
        """How many records stayed behind, or come late; 0 while nobody knows."""
        return sum(max(0, tail.records) for tail in self.tails)

    @property
    def settled(self) -> bool:
        """Whether no divergent record waits to be accounted for; late ones diverge from nothing, lost ones never will be."""
        return self.state in ("late", "copied", "lost") or (self.state != "open" and (self.divergent == 0 or bool(self.accounts)))


def renewed(ledger: Ledger, region: Region, topics: Container[str]) -> Ledger:
    """Return an entry as it stands once these topics of ``region`` are made anew from the other region's. Idempotent.

    No place in the old logs means anything any more. An entry of ``region`` that was not accounted for is lost, unless other topics hold
    some of it. One of the other region had its tails in the log that is copied from its beginning now, so they diverge no more.
    """
    if ledger.state not in ("open", "listed") or region not in (ledger.region, ledger.target):
        return ledger
    left = tuple(tail for tail in ledger.tails if tail.topic not in topics)
    if left == ledger.tails:
        return ledger
    unsaved = ledger.region == region and not ledger.settled
    if any(tail.records for tail in left):
        return ledger if unsaved else msgspec.structs.replace(ledger, tails=left)
    return msgspec.structs.replace(ledger, state="lost" if unsaved else "renewed" if ledger.settled else "copied")

"""The divergence ledger: what a failover left behind in the old region, per partition.

Written at the failover, when only the mirror can be read (*open*): the last mirrored record of each partition and where the
mirror ended. Completed when the region is back (*listed*): the mirrored record is found there, and everything after it up
to the log's end is divergent. The reversed flow appends behind it.

Under the default policy nothing diverges: the flow out of the old region goes on where it was, and copies the same records when
the region is back. They are *late*: listed then, and *copied* once the flow has passed the last of them.
"""

from __future__ import annotations

from typing import Literal

from mrc.core.model import Offset, Region, Written


class Tail(Written, frozen=True):
    """One partition's end of mirroring.

    Attributes:
        mirror_end: the target's log end when the flow had ended; the target's own records begin there.
        last_source: offset in the source of the last record that is known to be mirrored; -1 when none is known.
        last_fingerprint: of the last visible record of the mirror, 0 when the mirror is empty.
        last_timestamp_ms: of the same record; 0 when the mirror is empty.
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


class Ledger(Written, frozen=True):
    """One failover's ledger entry.

    Attributes:
        region: the old region, whose tails these are.
        execution: the failover.
        state: ``open`` until the region is back, then ``listed``; under the default policy ``late``, then ``copied``.
    """

    id: str
    region: Region
    target: Region
    execution: str
    at_ms: int
    state: Literal["open", "listed", "late", "copied"]
    tails: tuple[Tail, ...]
    version: Literal[1] = 1

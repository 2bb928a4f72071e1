"""One execution with everything in it that a report shows: what the tests of the report and of its page begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from mrc.core.failover.archive import Archived
from mrc.core.failover.execution import Entry
from mrc.core.failover.ledger import Account, Ledger, Tail
from mrc.core.failover.measured import Measured, Sample, add, begun, rereads
from mrc.core.failover.report import Report, make_report
from mrc.core.failover.shown import execution_view
from mrc.core.model import GroupId, Known, Offset, Reading, Region, Unknown, decode, encode
from mrc.core.views import FindingView

FIRST = Path(__file__).parent / "first_archived.json"
FAILOVER = "1700000001500"
"""The execution's id."""

NO_LEDGER = Unknown("not-recorded", "the divergence ledger has no entry of it", 0)

FINDINGS = (
    FindingView("RTO_EXCEEDED", "warning", "the last switchover, to east, took 21.0 s; the objective rto_s is 15", "1795497709477-3fa2c1"),
    FindingView("POSITIONS_BOUNDED", "warning", "1 positions are bounded: up to 12 records would be read again in all", "east->west"),
)


def archived() -> Archived:
    """The switchover of the golden archive, with samples around it: one reading is missing, and there is a gap."""
    one = decode(FIRST.read_bytes(), Archived)
    again = encode(rereads({GroupId("billing"): [0] * 7, GroupId("shipping"): [0, 0, 0, 0, 12, 0, None]})).decode()
    entries = tuple(_with(entry, again) if getattr(entry.event, "step", "") == "move-positions" else entry for entry in one.entries)
    return msgspec.structs.replace(one, entries=entries, measured=measured(entries[0].at_ms, entries[-1].at_ms))


def _with(entry: Entry, again: str) -> Entry:
    facts = getattr(entry.event, "facts", None)
    return (
        entry
        if facts is None
        else msgspec.structs.replace(entry, event=msgspec.structs.replace(entry.event, facts={**facts, "rereads": again}))
    )


def measured(began_ms: int, ended_ms: int) -> Measured:
    """Traffic of 1,000 a second in the source until the move begins, and in the target from its end on."""
    found = begun("1", 5.0, 15.0, FINDINGS)
    east, west = 100_000.0, 99_000.0
    for at_ms in range(began_ms - 12_000, ended_ms + 9_000, 1_000):
        east += 1_000.0 if at_ms < began_ms else 0.0
        west += 1_000.0 if at_ms < began_ms + 1_000 or at_ms > ended_ms else 0.0
        if ended_ms + 1_500 < at_ms < ended_ms + 4_500:
            continue
        moving = at_ms <= began_ms + 1_500
        lag, age = (max(0.0, 12.0 - (at_ms % 7_000) / 500), 0.1) if moving else ("not-captured", "not-captured")
        found = add(found, Sample(at_ms, lag, age, east, "cluster-unreachable" if at_ms == began_ms - 5_000 else west))
    return found


def report(one: Archived, ledgers: Reading[tuple[Ledger, ...]] = NO_LEDGER, now_ms: int = 0) -> Report:
    run = one.run()
    return make_report(execution_view(run, now_ms), run, one.entries, one.measured, ledgers, now_ms)


def ledger(*records: int, state: str = "listed", accounts: tuple[Account, ...] = ()) -> Reading[tuple[Ledger, ...]]:
    """The ledger with what a failover of west left behind in east, per partition; -1: not known yet."""
    tails = tuple(
        Tail("orders", p, Offset(500), 499, 7, 1, 500 if count >= 0 else -1, 500 + count if count >= 0 else -1, count)
        for p, count in enumerate(records)
    )
    said: Literal["open", "listed"] = "open" if state == "open" else "listed"
    return Known((Ledger(FAILOVER, Region("east"), Region("west"), FAILOVER, 1, said, tails, accounts=accounts),), 1)

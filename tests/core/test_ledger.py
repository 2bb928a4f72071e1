"""The divergence ledger: what becomes of an entry when logs that its places are in are made anew."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from mrc.core.failover.ledger import Account, Ledger, Tail, renewed
from mrc.core.model import Offset, Region

EAST, WEST = Region("east"), Region("west")
LISTED = Ledger(
    id="1-a",
    region=WEST,
    target=EAST,
    execution="1-a",
    at_ms=1,
    state="listed",
    tails=tuple(Tail(topic, 0, Offset(9), 8, 1, 1, begin=9, end=9 + records, records=records) for topic, records in (("a", 2), ("b", 3))),
)
ACCOUNTED = replace(LISTED, accounts=(Account("a", 0, 2, 2, 2, 0, 0, 2), Account("b", 0, 3, 3, 3, 0, 0, 3)))


@pytest.mark.parametrize(
    ("ledger", "region", "state"),
    [
        (LISTED, WEST, "lost"),
        (replace(LISTED, state="open"), WEST, "lost"),
        (ACCOUNTED, WEST, "renewed"),
        (LISTED, EAST, "copied"),
        (replace(LISTED, state="open"), EAST, "copied"),
        (ACCOUNTED, EAST, "renewed"),
        (replace(LISTED, state="lost"), WEST, "lost"),
        (replace(LISTED, state="late"), EAST, "late"),
    ],
)
def test_an_entry_is_closed_when_all_its_logs_of_one_side_are_made_anew(ledger: Ledger, region: Region, state: str) -> None:
    after = renewed(ledger, region, {"a", "b"})
    assert after == replace(ledger, state=state)
    assert after.settled
    assert renewed(after, region, {"a", "b"}) == after


def test_tails_in_topics_that_stay_go_on_diverging() -> None:
    after = renewed(LISTED, EAST, {"a", "c"})
    assert (after.state, [tail.topic for tail in after.tails], after.divergent) == ("listed", ["b"], 3)
    assert renewed(LISTED, EAST, {"c"}) == LISTED


def test_nothing_is_told_as_lost_while_some_of_it_can_be_recovered() -> None:
    assert renewed(LISTED, WEST, {"a"}) == LISTED

"""The benchmarks' own judgement: what is counted, and that a missed aim is said."""

from __future__ import annotations

import pytest

from benchmarks.translation import Cost, Judge, missed, table

SOURCE = [(0, "a"), (1, "b"), (3, "c"), (4, "d"), (6, "e")]


@pytest.mark.parametrize(
    ("target", "committed", "answer", "cost"),
    [
        ([(0, "a"), (1, "b"), (2, "c"), (4, "d")], 3, 2, Cost(0, 0)),
        ([(0, "a"), (1, "b"), (2, "c"), (4, "d")], 3, 0, Cost(2, 0)),
        ([(0, "a"), (1, "b"), (2, "c"), (4, "d")], 3, 4, Cost(0, 1)),
        ([(0, "a"), (1, "b"), (2, "c"), (4, "d")], 7, 5, Cost(0, 0)),
        # Sent again: the copies behind the answer are read again, and nobody skips what still has a copy ahead.
        ([(0, "a"), (1, "b"), (2, "c"), (3, "b"), (4, "c"), (5, "d")], 4, 3, Cost(2, 0)),
        ([(0, "a"), (1, "b"), (2, "c"), (3, "b"), (4, "c"), (5, "d")], 3, 3, Cost(1, 0)),
        # The target's own records count for nothing.
        ([(0, "x"), (1, "a"), (2, "y"), (3, "b")], 1, 2, Cost(0, 0)),
    ],
)
def test_what_a_group_would_meet(target: list[tuple[int, str]], committed: int, answer: int, cost: Cost) -> None:
    assert Judge(SOURCE, target).cost(committed, answer) == cost


def row(**changes: object) -> dict[str, object]:
    fields = ("mm2_reread_median", "mm2_reread_max", "mm2_skipped", "mm2_missing", "mrc_reread_median", "mrc_reread_max", "mrc_skipped")
    return {**dict.fromkeys(fields, 0), "mrc_over_its_bound": 0, "exact_share": 1.0, **changes}


def test_a_missed_aim_is_printed_as_missed() -> None:
    assert missed("live", row()) == []
    assert "MISSED" not in table({"live": row()})
    for change in ({"mrc_skipped": 1}, {"mrc_reread_max": 1}, {"exact_share": 0.99}, {"mrc_over_its_bound": 1}):
        assert "MISSED" in table({"live": row(**change)})
    assert missed("restart-duplicates", row(mrc_reread_max=9, exact_share=0.5)) == []
    assert missed("restart-duplicates", row(mrc_skipped=1))

"""What is measured stays small, and nothing that was not read looks as if it had been."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mrc.core.failover.measured import FINDINGS_MAX, GROUPS_MAX, SAMPLES_MAX, Measured, Sample, add, begun, due, rereads
from mrc.core.model import GroupId, decode, encode
from mrc.core.views import FindingView

NUMBERS = st.floats(0, 1e9) | st.sampled_from(["cluster-unreachable", "not-captured"])


def sample(at_ms: int, lag: float | str = 0.0) -> Sample:
    return Sample(at_ms, lag, lag, lag, lag)


def many(count: int, *, odd: dict[int, float | str] | None = None) -> Measured:
    found = begun("1", None, None, None)
    for number in range(count):
        if due(found, number * 1_000):
            found = add(found, sample(number * 1_000, (odd or {}).get(number, 1.0)))
    return found


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(-500, 20_000), NUMBERS), max_size=400))
def test_however_long_it_goes_on_there_are_few_samples_in_the_order_of_time(taken: list[tuple[int, float | str]]) -> None:
    found, now_ms = begun("1", None, None, None), 0
    for apart_ms, reading in taken:
        now_ms += apart_ms
        found = add(found, sample(now_ms, reading))
    times = [one.at_ms for one in found.samples]
    assert len(times) <= SAMPLES_MAX
    assert times == sorted(set(times))
    assert decode(encode(found), Measured) == found


@pytest.mark.parametrize("count", [SAMPLES_MAX + 1, SAMPLES_MAX * 2, SAMPLES_MAX * 9])
def test_an_unread_moment_and_a_peak_are_there_however_much_is_thinned(count: int) -> None:
    found = many(count, odd={7: "cluster-unreachable", 90: 5_000.0})
    assert [one.lag_records for one in found.samples if isinstance(one.lag_records, str)] == ["cluster-unreachable"]
    assert max(one.lag_records for one in found.samples if isinstance(one.lag_records, float)) == 5_000.0
    assert found.every_ms > 1_000


def test_a_gap_is_marked_and_stays_so_when_it_is_thinned() -> None:
    found = many(10)
    found = add(found, sample(60_000))
    assert [one.gap for one in found.samples] == [False] * 10 + [True]
    for number in range(SAMPLES_MAX * 3):
        found = add(found, sample(61_000 + number * 1_000))
    assert sum(one.gap for one in found.samples) == 1


def test_a_clock_that_was_set_back_adds_nothing_until_its_time_has_come_again() -> None:
    found = many(10)
    assert add(found, sample(4_000)) is found
    assert not due(found, 4_000)
    assert due(found, 9_950)


def test_many_findings_and_long_ones_are_cut_and_counted() -> None:
    found = begun("1", 5.0, 15.0, [FindingView("X", "warning", "m" * 10_000, "w" * 10_000)] * (FINDINGS_MAX + 3))
    assert found.findings is not None
    assert (len(found.findings), found.findings_left_out) == (FINDINGS_MAX, 3)
    assert len(encode(found)) < 50_000


def test_the_groups_that_read_most_again_are_named_and_the_totals_are_of_all() -> None:
    counts: dict[GroupId, list[int | None]] = {GroupId(f"group-{number:03d}"): [number, 0] for number in range(100)}
    counts[GroupId("lost")] = [None, 0, 0]
    found = rereads(counts)
    assert [one.group for one in found.listed[:3]] == ["lost", "group-099", "group-098"]
    assert (len(found.listed), found.groups, found.repeats_max, found.unknown) == (GROUPS_MAX, 101, sum(range(100)), 1)
    assert (found.exact, found.bounded) == (103, 99)

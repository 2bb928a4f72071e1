"""The arithmetic of the moves' benchmark: from the traffic's logs to figures, and that a missed aim is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.moves import AIMS, headlines, measured, merged, missed, summary, table
from mrc.sandbox.judge import Limits, Move, MoveVerdict, judge
from mrc.sandbox.traffic_log import Acked, Logs, Processed

BEGAN_S = 1_000.0


def acked(at_s: float, region: str, partition: int, number: int) -> Acked:
    return Acked(BEGAN_S + at_s, region, 1 if region == "east" else 2, "orders", partition, number, "key", number, f"event-{number}")


def processed(at_s: float, group: str, number: int) -> Processed:
    return Processed(BEGAN_S + at_s, "west", 2, group, "orders", 0, number, f"event-{number}")


MOVE = Move("switchover", "east", "west", int(BEGAN_S * 1000))
SWITCHOVER: list[Acked | Processed] = [
    acked(-1.0, "east", 1, 0),
    acked(0.4, "east", 1, 1),
    acked(0.5, "east", 0, 2),
    acked(2.0, "west", 0, 3),
    acked(2.6, "west", 1, 4),
    processed(2.2, "fast", 3),
    processed(3.5, "slow", 3),
]


def verdict_of(logs: Logs, move: Move) -> MoveVerdict:
    return judge(logs, {}, [move], ["fast", "slow"], active=move.source, drained=False, limits=Limits(None, None)).moves[0]


def figures(lines: list[Acked | Processed], move: Move = MOVE) -> dict[str, float | None]:
    logs = Logs(Path("nowhere")).add(lines)
    return measured(logs, move, verdict_of(logs, move))


def test_times_are_those_between_acknowledgements_in_the_source_and_in_the_target() -> None:
    assert figures(SWITCHOVER) == {"block_s": 2.2, "block_any_s": 1.5, "rto_s": 3.5, "first_ack_s": 2.0}


def test_what_comes_after_the_way_home_is_no_part_of_the_move() -> None:
    home = Move("switchover", "west", "east", int((BEGAN_S + 10) * 1000))
    logs = Logs(Path("nowhere")).add([*SWITCHOVER, Acked(BEGAN_S + 12, "east", 3, "orders", 0, 9, "key", 9, "event-9")])
    verdicts = judge(logs, {}, [MOVE, home], ["fast", "slow"], active="east", drained=False, limits=Limits(None, None)).moves
    assert measured(logs, MOVE, verdicts[0]) == figures(SWITCHOVER)


@pytest.mark.parametrize("gone", ["west", "slow"])
def test_what_never_came_has_no_time_and_is_no_aim_that_is_met(gone: str) -> None:
    lines = [line for line in SWITCHOVER if gone not in (line.region if isinstance(line, Acked) else line.group)]
    assert figures(lines)["rto_s"] is None
    samples = [figures(lines), figures(SWITCHOVER)]
    assert summary(samples)["rto_s"] == {"p50": None, "worst": None}
    results = {"100": {"unplanned": part(samples)}}
    assert "unplanned_rto_s with 100 groups is None" in missed(results)[0]
    assert "MISSED" in table(results)


def part(samples: list[dict[str, float | None]], broken: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"summary": summary(samples), "samples": samples, "broken": list(broken), "agent_rss_mb_max": 80.0}


def test_the_median_and_the_worst_of_the_moves_stand_beside_one_another() -> None:
    samples: list[dict[str, float | None]] = [{"block_s": value} for value in (1.0, 9.0, 2.0, 4.0, 3.0)]
    assert summary(samples) == {"block_s": {"p50": 3.0, "worst": 9.0}}


@pytest.mark.parametrize(("name", "aim"), AIMS.items())
def test_an_aim_is_met_up_to_its_value_and_missed_beyond_it_at_any_number_of_groups(name: str, aim: tuple[str, str, float]) -> None:
    kind, figure, aim_s = aim
    for groups in ("10", "100"):
        met, over = ({groups: {kind: part([{figure: aim_s + more}])}} for more in (0.0, 0.1))
        assert missed(met) == []
        assert "met" in table(met)
        assert "MISSED" not in table(met)
        assert missed(over) == [f"{name} with {groups} groups is {aim_s + 0.1}, the aim is at most {aim_s:.0f}"]
        assert "MISSED" in table(over)


def test_a_broken_promise_is_missed_however_quick_the_move_was() -> None:
    results = {"10": {"planned": part([{"block_s": 0.1}], broken=("move 1: lost 3 acknowledged events",))}}
    assert missed(results) == ["planned with 10 groups: move 1: lost 3 acknowledged events"]


def test_the_headlines_are_the_medians_at_a_hundred_groups_and_nothing_where_those_were_not_measured() -> None:
    few, many = part([{"block_s": 1.0}]), part([{"block_s": 2.0}, {"block_s": 2.5}])
    nothing = dict.fromkeys(AIMS, None)
    assert headlines({"10": {"planned": few}}) == nothing
    assert headlines({"10": {"planned": few}, "100": {"planned": many}}) == nothing | {"planned_block_s": 2.25}


def test_parts_are_kept_only_where_they_were_measured_under_the_same_circumstances() -> None:
    setting = {"commit": "abc", "parameters": {"partitions": 50}}
    before = {**setting, "measurements": {"100": {"planned": part([{"block_s": 1.0}])}}}
    assert merged(before, setting) == before["measurements"]
    assert merged(before, {**setting, "commit": "abd"}) == {}
    assert merged(before, {**setting, "parameters": {"partitions": 8}}) == {}
    assert merged({}, setting) == {}

"""The capture benchmark's own judgement: which checkpoint answers for which commit, and that a missed aim is said."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from benchmarks.capture import Ages, Sighting, ages, growth, missed, ours, quantile, row, theirs
from benchmarks.commit_load import ACK, Ack, behind, group_name, next_turn, read_acks
from mrc.core.model import GroupId, Offset
from mrc.core.translation.checkpoint import CheckpointKey, advance, encode_checkpoint
from mrc.core.translation.offset_map import Exact, Unanswerable

KEY = ("bench-007", 3)


def commit(at_s: float, offset: int) -> Ack:
    return Ack(at_s, 7, 3, offset)


def test_a_commit_is_as_old_as_the_first_checkpoint_at_or_beyond_it() -> None:
    seen = [Sighting(1.0, KEY, 10), Sighting(2.0, KEY, 30), Sighting(3.0, KEY, 30), Sighting(4.0, KEY, 40)]
    assert ages([commit(0.5, 10), commit(1.5, 20), commit(1.75, 30)], seen, end_s=9.0) == Ages([500.0, 500.0, 250.0], 0)


def test_a_checkpoint_that_was_read_before_the_acknowledgement_counts() -> None:
    assert ages([commit(1.25, 10)], [Sighting(1.0, KEY, 10), Sighting(2.0, KEY, 20)], end_s=9.0) == Ages([0.0], 0)


def test_a_commit_without_a_checkpoint_is_as_old_as_the_measuring_lasted() -> None:
    others = [Sighting(1.0, ("bench-008", 3), 99), Sighting(1.0, ("bench-007", 4), 99), Sighting(1.0, KEY, 9)]
    assert ages([commit(1.0, 10)], others, end_s=9.0) == Ages([8000.0], 1)
    assert ages([commit(1.0, 10)], [], end_s=9.0) == Ages([8000.0], 1)


def test_a_checkpoint_that_goes_backwards_answers_for_nothing_new() -> None:
    assert ages([commit(0.0, 15)], [Sighting(1.0, KEY, 20), Sighting(2.0, KEY, 10)], end_s=9.0) == Ages([1000.0], 0)


@pytest.mark.parametrize(("translation", "answered"), [(Exact(Offset(5), "found"), True), (Unanswerable("not-yet-replicated"), False)])
def test_a_checkpoint_of_mrc_is_read_as_it_is_written(translation: Exact | Unanswerable, *, answered: bool) -> None:
    checkpoint = advance(None, source_offset=42, metadata="", translation=translation, now_ms=0, topic_id="id", target_id="there")
    key, value = encode_checkpoint(CheckpointKey(GroupId("bench-007"), "orders", 3), checkpoint)
    assert ours(1.0, key, value) == Sighting(1.0, KEY, 42, answered)
    assert ours(1.0, key, None) is None


def test_a_checkpoint_of_mirror_maker_is_read_as_it_is_written() -> None:
    key = struct.pack(">h9sh6si", 9, b"bench-007", 6, b"orders", 3)
    value = struct.pack(">hqqh", 0, 42, 40, 0)
    assert theirs(1.0, key, value) == Sighting(1.0, KEY, 42)
    assert theirs(1.0, key, None) is None


def test_what_is_noted_is_read_again_but_for_a_record_that_was_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "acks"
    path.write_bytes(ACK.pack(1.5, 7, 3, 42) + ACK.pack(2.5, 199, 11, -1) + ACK.pack(3.5, 7, 3, 43)[:-1])
    assert list(read_acks(path)) == [Ack(1.5, 7, 3, 42), Ack(2.5, 199, 11, -1)]
    assert group_name(7) == KEY[0]


def test_groups_stay_behind_at_different_distances_the_same_in_every_run() -> None:
    found = behind(200, 12, 300)
    assert found == behind(200, 12, 300)
    assert min(map(min, found)) == 0
    assert max(map(max, found)) == 300
    assert len({tuple(distances) for distances in found}) == 200


def test_a_client_that_was_held_up_is_one_period_late_at_most() -> None:
    assert next_turn(199, 200, 1.0) == 200
    assert next_turn(199, 200, 1.9) == 200
    assert next_turn(199, 200, 10.0) == 1800


def test_quantiles_are_of_what_was_measured() -> None:
    assert quantile([], 0.5) is None
    assert [quantile([4.0, 1.0, 3.0, 2.0], share) for share in (0.0, 0.5, 1.0)] == [1.0, 3.0, 4.0]
    assert row("mm2_", Ages([1.04, 5.0], 1)) == {
        "mm2_age_p50_ms": 5.0,
        "mm2_age_p99_ms": 5.0,
        "mm2_age_max_ms": 5.0,
        "mm2_commits": 2,
        "mm2_without_checkpoint": 1,
    }


def figures(**changes: object) -> dict[str, object]:
    met = {"age_p99_ms": 1000.0, "agent_cpu_share": 1.0, "agent_rss_mb_max": 300.0, "records_per_s": 5000, "commits_per_s": 2400}
    return {**met, "without_checkpoint": 0, "refused_commits": 0, "other_work_cpu_share": 0.1, **changes}


def test_a_missed_aim_and_a_short_load_are_said() -> None:
    assert missed(figures()) == []
    for change in (
        {"age_p99_ms": 1000.1},
        {"age_p99_ms": None},
        {"agent_cpu_share": 1.01},
        {"agent_rss_mb_max": 300.1},
        {"without_checkpoint": 1},
        {"refused_commits": 1},
        {"records_per_s": 4700},
        {"other_work_cpu_share": 0.2},
        {"commits_per_s": 2200},
    ):
        assert len(missed(figures(**change))) == 1


def test_memory_grows_from_the_shortest_logs_to_the_longest() -> None:
    assert growth({"1000000": {"agent_rss_mb_max": 100.0}}) is None
    assert growth({"5000000": {"agent_rss_mb_max": 105.0}, "1000000": {"agent_rss_mb_max": 100.0}}) == 1.05

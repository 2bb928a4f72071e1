"""How `benchmarks/translation.py` judges logs, reads MirrorMaker's checkpoints and keeps results."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from benchmarks.translation_oracle import Checkpoint, Cost, Judge, decode_checkpoint, events, without_record
from benchmarks.translation_report import BEGIN, END, earlier, merged, missed, table, write_into

ROW = {
    "mm2_reread_median": 10.0,
    "mm2_reread_max": 20,
    "mm2_skipped": 0,
    "mm2_missing": 0,
    "mrc_reread_median": 0.0,
    "mrc_reread_max": 0,
    "mrc_skipped": 0,
    "mrc_missing": 0,
    "mrc_over_its_bound": 0,
    "positions": 140,
    "exact_share": 1.0,
}
SETTING = {"parameters": {"groups": 20}, "machine": {"cores": 2}, "versions": {"kafka": "4"}}


def checkpoint(group: str, topic: str, partition: int, version: int, upstream: int, downstream: int) -> tuple[bytes, bytes]:
    """Encode one as Kafka's class `Checkpoint` does."""
    key = b"".join(struct.pack(">h", len(text)) + text.encode() for text in (group, topic)) + struct.pack(">i", partition)
    return key, struct.pack(">hqqh", version, upstream, downstream, 0)


def test_what_compaction_removed_from_the_source_is_still_read_again() -> None:
    written = [(0, "a"), (1, "b"), (2, "c"), (3, "d")]
    source = [(2, "c"), (3, "d")]
    target = [(0, "a"), (1, "b"), (2, "c"), (3, "d")]
    assert Judge(source, target, written).cost(3, 0) == Cost(reread=3, skipped=0)
    assert Judge(source, target, written).cost(1, 2) == Cost(reread=0, skipped=0)  # "b" is gone for everybody
    assert Judge(source, target, written).cost(1, 3) == Cost(reread=0, skipped=1)


def test_a_second_copy_is_read_again_too_and_never_counts_as_skipped_while_one_copy_lies_ahead() -> None:
    judge = Judge([(0, "a"), (1, "b"), (2, "c")], [(0, "a"), (1, "b"), (2, "a"), (3, "b"), (4, "c")])
    assert judge.copied_again == 2
    assert judge.cost(2, 1) == Cost(reread=3, skipped=0)
    assert judge.cost(1, 3) == Cost(reread=0, skipped=0)
    assert judge.cost(1, 4) == Cost(reread=0, skipped=1)


def test_what_is_not_copied_at_all_is_not_skipped_by_an_answer() -> None:
    assert Judge([(0, "a"), (1, "b")], [(0, "a")]).cost(1, 1) == Cost(0, 0)


def test_records_of_the_target_that_were_never_written_are_found() -> None:
    assert Judge([(0, "a")], [(0, "a"), (1, "x")]).strangers == 1
    assert Judge([], [(0, "a")], [(7, "a")]).strangers == 0


@pytest.mark.parametrize(("log", "count"), [([], 0), ([(0, "a"), (1, "b")], 0), ([(2, "a"), (5, "b")], 4)])
def test_offsets_without_a_record_are_counted_up_to_the_last_record(log: list[tuple[int, str]], count: int) -> None:
    assert without_record(log) == count


def test_checkpoints_are_read_as_mirrormaker_writes_them() -> None:
    key, value = checkpoint("billing", "orders", 2, 0, 17_412, 2**40)
    assert decode_checkpoint(key, value) == Checkpoint("billing", ("orders", 2), 17_412, 2**40)


def test_a_checkpoint_that_is_cut_short_or_newer_is_refused() -> None:
    key, value = checkpoint("billing", "orders", 2, 0, 1, 2)
    for cut_key, cut_value in ((key[:-1], value), (key[:5], value), (key, value[:17])):
        with pytest.raises(ValueError, match="cut short"):
            decode_checkpoint(cut_key, cut_value)
    with pytest.raises(ValueError, match="version 1"):
        decode_checkpoint(*checkpoint("billing", "orders", 2, 1, 1, 2))


def test_a_record_without_an_event_is_refused() -> None:
    assert events([(4, b"k", b'{"id": "e1"}')]) == [(4, "e1")]
    for value in (None, b"", b"{}"):
        with pytest.raises((KeyError, ValueError)):
            events([(0, None, value)])


def test_a_position_without_an_answer_of_mrc_is_a_missed_aim_everywhere() -> None:
    for name in ("live", "restart-duplicates"):
        assert missed(name, ROW) == []
        assert missed(name, {**ROW, "mrc_missing": 1})


def test_what_nobody_answered_shows_as_a_dash_and_not_as_zero() -> None:
    shown = table({"random": {**ROW, "mm2_reread_median": None, "mm2_reread_max": None, "mm2_missing": 140}})
    assert shown.splitlines()[-1].split()[1:5] == ["-", "-", "0", "140"]


def test_scenarios_that_were_not_run_stay_in_the_file_if_taken_in_the_same_setting() -> None:
    before = {**SETTING, "commit": "a", "scenarios": {"random": {"positions": 1}, "live": {"positions": 2}}}
    now = {**SETTING, "commit": "b", "scenarios": {"random": {"positions": 3}}}
    order = ["live", "random"]
    assert list(merged(before, now, order)["scenarios"].items()) == [("live", {"positions": 2}), ("random", {"positions": 3})]
    other = {**before, "parameters": {"groups": 2}}
    assert merged(other, now, order)["scenarios"] == now["scenarios"]
    assert merged({}, now, order) == now


def test_a_results_file_is_read_back_and_none_is_no_failure(tmp_path: Path) -> None:
    path = tmp_path / "translation.json"
    assert earlier(path) == {}
    path.write_text(json.dumps({"commit": "a"}))
    assert earlier(path) == {"commit": "a"}


def test_the_table_in_a_document_is_replaced_and_names_every_commit_it_comes_from(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    rows = {"live": {**ROW, "commit": "a1"}, "random": {**ROW, "commit": "b2"}}
    for _ in range(2):
        write_into(path, {**SETTING, "commit": "b2", "scenarios": rows})
    text = path.read_text()
    assert text.startswith(f"before\n{BEGIN}\n| scenario")
    assert text.endswith(f"{END}\nafter\n")
    assert "old" not in text
    assert "Commit a1, b2, 2 cores." in text

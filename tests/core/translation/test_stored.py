"""The stored map is the map: whatever was written last, and only what changed is written again."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from mrc.core.model import decode, encode
from mrc.core.translation import offset_map
from mrc.core.translation.offset_map import CHUNK_RUNS, OffsetMap, Run
from mrc.core.translation.stored import MapKey, decode_map, encode_map, stored_isolation
from tests.core.translation.oracle import history
from tests.core.translation.test_histories import align

IDS = ("here", "there")


class Topic:
    """A compacted topic with one partition's map in it."""

    def __init__(self) -> None:
        self.entries: dict[bytes, bytes] = {}
        self._first = 0

    def store(self, known: OffsetMap) -> int:
        """Write what has changed; return how many records that were."""
        records = encode_map("orders", 0, known, IDS, first_before=self._first)
        for key, value in records:
            if value is None:
                self.entries.pop(key, None)
            else:
                self.entries[key] = value
        known.changed_from, self._first = len(known), known.first
        return len(records)

    def load(self) -> tuple[OffsetMap | None, str]:
        found = decode_map(self.entries, "orders", 0, IDS)
        return found.known, found.wrong


def same(one: OffsetMap, other: OffsetMap) -> bool:
    names = "begin_source begin_target resolved_source resolved_target resent possible strays anchors tail_sure first"
    return one.runs() == other.runs() and all(getattr(one, name) == getattr(other, name) for name in names.split())


@pytest.mark.parametrize("seed", range(60))
def test_a_map_comes_back_as_it_was(seed: int) -> None:
    known = align(history(seed), random.Random(seed), whole=True).map
    known.stray(seed, 2 * seed)
    topic = Topic()
    topic.store(known)
    back, wrong = topic.load()
    assert wrong == ""
    assert back is not None
    assert same(back, known)


def test_a_change_of_an_old_run_is_written_too() -> None:
    known = OffsetMap(0, 0)
    for n in range(3 * CHUNK_RUNS):
        known.add(Run(10 * n, 20 * n, 5))
    known.resume_at(30 * CHUNK_RUNS, 60 * CHUNK_RUNS)
    topic = Topic()
    topic.store(known)
    known.doubt(10 * 1500 + 2)
    assert topic.store(known) == 4, "two chunks behind the change, one more that it made, the head"
    known.pair(10 * 3 * CHUNK_RUNS, 20 * 3 * CHUNK_RUNS, sure=False)
    topic.store(known)
    known.confirm()
    assert topic.store(known) == 2
    known.revoke()
    topic.store(known)
    back, wrong = topic.load()
    assert (wrong, back is not None and same(back, known)) == ("", True)


def test_beyond_its_bound_a_map_forgets_the_oldest_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    most = 20 * CHUNK_RUNS
    monkeypatch.setattr(offset_map, "RUNS_MAX", most)
    known = OffsetMap(0, 0)
    topic = Topic()
    for n in range(most + 1):
        known.add(Run(10 * n, 20 * n, 5))
        if n == most - 1:
            known.resume_at(10 * most, 20 * most)
            topic.store(known)
    known.resume_at(10 * most + 5, 20 * most + 5)
    dropped = known.first
    assert dropped > 0
    assert len(known) == most + 1 - dropped
    topic.store(known)
    chunks = {decode(key, MapKey).chunk for key in topic.entries}
    assert min(chunk for chunk in chunks if chunk >= 0) == dropped // CHUNK_RUNS
    back, wrong = topic.load()
    assert (wrong, back is not None and same(back, known)) == ("", True)
    assert back is not None
    assert str(back.to_target(0)) == "Unanswerable(reason='before-map')"
    assert back.to_target(10 * dropped) == known.to_target(10 * dropped)


def test_what_is_missing_or_garbled_ends_the_map_before_it() -> None:
    for damage in (b"", b"{", None):
        known = OffsetMap(0, 0)
        for n in range(2 * CHUNK_RUNS):
            known.add(Run(10 * n, 20 * n, 5))
        known.resume_at(20 * CHUNK_RUNS, 40 * CHUNK_RUNS)
        topic = Topic()
        topic.store(known)
        key = encode(MapKey("orders", 0, 1))
        if damage is None:
            del topic.entries[key]
        else:
            topic.entries[key] = damage
        back, wrong = topic.load()
        assert "chunk 1" in wrong
        assert back is not None
        assert len(back) == CHUNK_RUNS
        assert back.resolved_source == 10 * (CHUNK_RUNS - 1) + 5


def test_a_map_of_topics_made_anew_is_not_used() -> None:
    topic = Topic()
    topic.store(OffsetMap(0, 0))
    for ids in (("other", "there"), ("here", "other"), ("", "other")):
        back, wrong, _ = decode_map(topic.entries, "orders", 0, ids)
        assert back is None
        assert "made anew" in wrong
    assert decode_map(topic.entries, "orders", 0, ("", "there"))[0] is not None


def test_a_map_that_two_writers_have_torn_ends_where_it_is_torn() -> None:
    known = OffsetMap(0, 0)
    for n in range(2 * CHUNK_RUNS):
        known.add(Run(10 * n, 20 * n, 5))
    topic = Topic()
    topic.store(known)
    key = encode(MapKey("orders", 0, 0))
    topic.entries[key] = encode(known.runs(0, CHUNK_RUNS - 9))
    back, wrong = topic.load()
    assert "chunk 0" in wrong
    assert back is not None
    assert len(back) == 0


@pytest.mark.parametrize(
    ("chunk", "written", "said"),
    [
        (-1, lambda head: {**head, "version": 2}, "head .* cannot be read: .*version"),
        (-1, lambda head: {**head, "shape": "round"}, "head .* cannot be read: .*shape"),
        (0, lambda runs: [[*run, 7] for run in runs], "chunk 0 .* cannot be read"),
        (0, lambda runs: {"version": 2, "runs": runs}, "chunk 0 .* cannot be read"),
    ],
)
def test_a_version_or_field_that_is_not_known_is_said_and_not_passed_over(chunk: int, written: Callable[[Any], Any], said: str) -> None:
    topic, known = Topic(), OffsetMap(0, 0)
    known.add(Run(0, 0, 5))
    topic.store(known)
    key = encode(MapKey("orders", 0, chunk))
    topic.entries[key] = encode(written(msgspec.json.decode(topic.entries[key])))
    back, wrong = topic.load()
    assert re.match(f"(the )?{said}", wrong)
    assert back is None or back.runs() == []


def test_how_the_source_was_read_is_told_by_maps_of_the_asked_topics_only() -> None:
    entries: dict[bytes, bytes] = {b"garbled": b"{"}
    for topic, sight in (("theirs", "read_committed, with timestamps"), ("orders", "read_uncommitted, with timestamps")):
        for key, value in encode_map(topic, 0, OffsetMap(0, 0), IDS, first_before=0, sight=sight):
            entries[key] = value or b""
    assert stored_isolation(entries, ("orders",)) == "read_uncommitted"
    assert stored_isolation(entries, ("payments",)) == ""


def test_a_map_made_by_looking_in_another_way_is_not_used_and_says_so() -> None:
    entries = {key: value or b"" for key, value in encode_map("orders", 0, OffsetMap(0, 0), IDS, first_before=0, sight="read_committed, x")}
    found = decode_map(entries, "orders", 0, IDS, "read_uncommitted, x")
    assert found.known is None
    assert "read_committed, x so far" in found.wrong
    assert decode_map(entries, "orders", 0, IDS, "read_committed, x").known is not None

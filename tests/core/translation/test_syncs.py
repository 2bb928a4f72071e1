"""MM2's offset syncs and checkpoints: the bytes, the topics, and the answers of its own tests (OffsetSyncStoreTest)."""

from __future__ import annotations

import pytest

from mrc.core.model import GroupId, Region, TopicPartition
from mrc.core.translation.syncs import (
    Mm2Checkpoint,
    Names,
    Sync,
    SyncStore,
    decode_mm2_checkpoint,
    decode_sync,
    encode_mm2_checkpoint,
    encode_sync,
    mm2_answer,
    names,
    neighbours,
)

EAST, WEST = Region("east"), Region("west")
TP = TopicPartition("orders", 3)


def line(begin: int, end: int, step: int = 10) -> list[Sync]:
    return [Sync(offset, offset) for offset in range(begin, end, step)]


def test_a_sync_is_read_as_mirrormaker_writes_it() -> None:
    key = b"\x00\x06orders\x00\x00\x00\x03"
    value = b"\x00\x00\x00\x00\x00\x00\x00\x64\x00\x00\x00\x00\x00\x00\x00\xc8"
    assert decode_sync(key, value) == (TP, Sync(100, 200))
    assert encode_sync(TP, Sync(100, 200)) == (key, value)


def test_a_checkpoint_is_read_as_mirrormaker_writes_it() -> None:
    key = b"\x00\x07billing\x00\x0beast.orders\x00\x00\x00\x03"
    value = b"\x00\x00" + b"\x00\x00\x00\x00\x00\x00\x00\x64" + b"\x00\x00\x00\x00\x00\x00\x00\xc8" + b"\x00\x02\xc3\xa9"
    said = (GroupId("billing"), TopicPartition("east.orders", 3), Mm2Checkpoint(100, 200, "é"))
    assert decode_mm2_checkpoint(key, value) == said
    assert encode_mm2_checkpoint(*said) == (key, value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (None, b"\x00" * 16),
        (b"\x00\x06orders\x00\x00\x00\x03", None),
        (b"", b"\x00" * 16),
        (b"\xff\xff", b"\x00" * 16),
        (b"\x00\x63orders\x00\x00\x00\x03", b"\x00" * 16),
        (b"\x00\x06orders\x00\x00\x03", b"\x00" * 16),
        (b"\x00\x06orders\x00\x00\x00\x03\x00", b"\x00" * 16),
        (b"\x00\x02\xff\xfe\x00\x00\x00\x03", b"\x00" * 16),
        (b"\x00\x06orders\x00\x00\x00\x03", b"\x00" * 15),
    ],
)
def test_what_is_no_sync_is_left_out(key: bytes | None, value: bytes | None) -> None:
    assert decode_sync(key, value) is None


@pytest.mark.parametrize(("key", "value"), [(b"", b""), (b"\x00\x01g\x00\x01t\x00\x00\x00\x00", b"\x00\x01" + b"\x00" * 18)])
def test_what_is_no_checkpoint_of_the_known_version_is_left_out(key: bytes, value: bytes) -> None:
    assert decode_mm2_checkpoint(key, value) is None


def test_a_topic_of_syncs_is_named_after_the_cluster_that_it_does_not_lie_in() -> None:
    assert names(EAST, WEST, {}) == Names("mm2-offset-syncs.west.internal", "source", "east.checkpoints.internal")
    at_target = {"offset-syncs.topic.location": "target"}
    assert names(EAST, WEST, at_target) == Names("mm2-offset-syncs.east.internal", "target", "east.checkpoints.internal")


def test_aliases_and_separators_count_in_the_names() -> None:
    settings = {"source.cluster.alias": "a", "target.cluster.alias": "b", "replication.policy.separator": "_"}
    assert names(EAST, WEST, settings) == Names("mm2-offset-syncs_b_internal", "source", "a_checkpoints_internal")
    plain = {**settings, "replication.policy.internal.topic.separator.enabled": "false"}
    assert names(EAST, WEST, plain) == Names("mm2-offset-syncs.b.internal", "source", "a.checkpoints.internal")


def test_a_position_on_a_sync_is_answered_with_it_and_one_behind_it_with_the_next_offset_however_far_ahead() -> None:
    syncs = [Sync(100, 200)]
    assert mm2_answer(syncs, 100).offset == 200
    assert {mm2_answer(syncs, offset).offset for offset in (101, 150, 10_000)} == {201}
    assert mm2_answer([*syncs, Sync(150, 251)], 150).offset == 251


def test_before_the_first_sync_and_without_any_nothing_is_answered() -> None:
    assert mm2_answer([Sync(100, 200)], 99) == (None, None, 1)
    assert mm2_answer([], 0) == (None, None, 0)


def test_a_target_that_began_again_is_answered_with_the_newest_sync() -> None:
    assert mm2_answer([Sync(100, 200), Sync(150, 251), Sync(200, 10)], 200).offset == 10


def test_a_source_that_began_again_makes_all_earlier_syncs_void() -> None:
    syncs = [*line(0, 10_001), Sync(1500, 11_000)]
    assert mm2_answer(syncs, 1499).offset is None
    assert mm2_answer(syncs, 1500).offset == 11_000
    assert mm2_answer(syncs, 2000).offset == 11_001
    assert neighbours(syncs, 5000, 3).at_or_below == (Sync(1500, 11_000),)


def test_the_syncs_that_are_kept_are_those_of_mirrormakers_own_test() -> None:
    """OffsetSyncStoreTest.testPastOffsetTranslation: the store has read up to 1000 when it starts, then one sync every 10 offsets."""
    store = SyncStore()
    for sync in line(1000, 10_001):
        store.add(sync)
    assert [sync.source for sync in store.kept()] == [10_000, 9990, 9970, 9940, 9880, 9640, 9160, 8680, 6760, 4840, 1000]


@pytest.mark.parametrize("step", [1, 3, 7, 15, 31, 127, 1023])
def test_each_sync_takes_the_place_of_at_most_one_other_and_the_first_stays(step: int) -> None:
    for first in (0, 1, 13, 29):
        store, before = SyncStore(), 0
        for offset in range(first, 4000, step):
            store.add(Sync(offset, offset))
            kept = store.kept()
            assert (kept[0].source, kept[-1].source) == (offset, first)
            assert len(kept) >= before
            before = len(kept)
        assert before <= 64


def test_neighbours_are_the_nearest_syncs_on_either_side() -> None:
    found = neighbours(line(0, 101), 45, 2)
    assert [sync.source for sync in found.at_or_below] == [30, 40]
    assert [sync.source for sync in found.above] == [50, 60]
    assert neighbours(line(0, 101), 40, 1).at_or_below == (Sync(40, 40),)
    assert neighbours([], 5, 2) == ((), ())

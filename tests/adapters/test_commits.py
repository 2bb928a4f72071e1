"""What is read from Kafka's own topic of positions, by the formats that Kafka documents."""

from __future__ import annotations

import struct

import pytest

from mrc.adapters.kafka.commits import decode_commit
from mrc.core.errors import MrcError
from mrc.core.model import GroupId, Offset, TopicPartition
from mrc.ports import Commit, Position


def string(text: str) -> bytes:
    return struct.pack(">h", len(text.encode())) + text.encode()


def key(version: int = 1) -> bytes:
    return struct.pack(">h", version) + string("grüppe") + string("orders") + struct.pack(">i", 7)


def value(version: int, metadata: str = "meta") -> bytes:
    head = struct.pack(">hq", version, 42)
    if version >= 3:
        head += struct.pack(">i", 5)
    if version < 4:
        return head + string(metadata) + struct.pack(">q", 1) + (struct.pack(">q", 2) if version == 1 else b"")
    length = len(metadata.encode()) + 1
    varint = bytes([length]) if length < 128 else bytes([length & 127 | 128, length >> 7])
    # A tagged field: one of them, tag 0, sixteen bytes of topic id.
    return head + varint + metadata.encode() + struct.pack(">q", 1) + b"\x01\x00\x10" + b"i" * 16


@pytest.mark.parametrize("version", range(5))
@pytest.mark.parametrize("metadata", ["", "meta", "m" * 300])
def test_every_version_of_a_position_is_read(version: int, metadata: str) -> None:
    wanted = Commit(GroupId("grüppe"), TopicPartition("orders", 7), Position(Offset(42), metadata))
    assert decode_commit(key(0), value(version, metadata), "east") == wanted
    assert decode_commit(key(1), value(version, metadata), "east") == wanted


def test_the_byte_that_the_driver_adds_to_metadata_is_taken_away() -> None:
    assert decode_commit(key(), value(4, "meta\0"), "east") == decode_commit(key(), value(4, "meta"), "east")


def test_a_tombstone_says_that_the_position_is_gone() -> None:
    assert decode_commit(key(), None, "east") == Commit(GroupId("grüppe"), TopicPartition("orders", 7), None)


def test_what_describes_groups_is_passed_over() -> None:
    assert decode_commit(struct.pack(">h", 2) + string("group"), b"anything", "east") is None
    assert decode_commit(struct.pack(">h", 9), None, "east") is None


@pytest.mark.parametrize("cut", range(2, len(key())))
def test_a_key_that_is_cut_short_is_an_error(cut: int) -> None:
    with pytest.raises(MrcError) as raised:
        decode_commit(key()[:cut], value(3), "east")
    assert raised.value.code == "VERSION_MISMATCH"


@pytest.mark.parametrize(("version", "cut"), [(v, c) for v in range(5) for c in range(len(string("meta")) + 10)])
def test_a_value_that_is_cut_short_or_of_a_later_version_is_an_error(version: int, cut: int) -> None:
    for data in (value(version)[:cut], struct.pack(">h", 5) + value(4)[2:]):
        with pytest.raises(MrcError) as raised:
            decode_commit(key(), data, "east")
        assert raised.value.code == "VERSION_MISMATCH"

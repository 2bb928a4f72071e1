"""The file of positions: whole or refused; and what of a checkpoint may be committed."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from mrc.core.errors import MrcError
from mrc.core.model import GroupId, Offset, Region
from mrc.core.translation.checkpoint import Checkpoint
from mrc.core.translation.offset_map import Bounded, Exact, Translation, Unanswerable
from mrc.core.translation.positions import FilePosition, PositionsFile, Safe, decode_positions, encode_positions, safe


def position(partition: int = 0, **more: Any) -> FilePosition:
    return msgspec.structs.replace(FilePosition(GroupId("billing"), "orders", partition, 40, "\x00é", "orders", 42, "exact"), **more)


def file(*positions: FilePosition) -> PositionsFile:
    return PositionsFile("mrc-positions", 1, "orders", Region("east"), Region("west"), 3, 1_790_000_000_000, "agents", positions)


def checkpoint(translation: Translation, floor: int) -> Checkpoint:
    return Checkpoint(42, "", translation, floor, 0, "id")


def test_a_file_that_was_written_is_read_back_as_it_was() -> None:
    written = file(position(0), position(1, evidence="bounded", repeats_max=7))
    assert decode_positions(encode_positions(written), "f.json") == written


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"version": 2}, "version"),
        ({"kind": "something"}, "kind"),
        ({"colour": "red"}, "colour"),
        ({"positions": [{"group": "billing"}]}, "positions"),
        ({"target": None}, "target"),
    ],
)
def test_a_file_that_is_not_whole_is_refused_by_field(change: dict[str, object], told: str) -> None:
    data = {**json.loads(encode_positions(file(position()))), **change}
    with pytest.raises(MrcError, match=told) as refused:
        decode_positions(json.dumps(data).encode(), "f.json")
    assert (refused.value.code, refused.value.where) == ("POSITIONS_INVALID", "f.json")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff\xfe", b"offset,group"])
def test_what_is_no_such_file_is_refused(data: bytes) -> None:
    with pytest.raises(MrcError) as refused:
        decode_positions(data, "f.json")
    assert refused.value.code == "POSITIONS_INVALID"


def test_an_offset_below_nothing_and_a_position_twice_are_refused() -> None:
    negative = json.loads(encode_positions(file(position())))
    negative["positions"][0]["offset"] = -1
    for data in (json.dumps(negative).encode(), encode_positions(file(position(), position(offset=41)))):
        with pytest.raises(MrcError) as refused:
            decode_positions(data, "f.json")
        assert refused.value.code == "POSITIONS_INVALID"


def test_an_answer_is_safe_and_else_the_last_one_that_there_was() -> None:
    assert safe(checkpoint(Exact(Offset(40), ""), 40)) == Safe(40, "exact", 0)
    assert safe(checkpoint(Bounded(Offset(40), 3, "identical-records"), 40)) == Safe(40, "bounded", 3)
    assert safe(checkpoint(Unanswerable("not-yet-replicated"), 33)) == Safe(33, "floor", 0)
    assert safe(checkpoint(Unanswerable("not-yet-replicated"), -1)) is None

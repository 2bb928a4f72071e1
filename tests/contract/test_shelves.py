"""Shelves, in memory and on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mrc.adapters.rocks import RocksShelves
from mrc.core.errors import MrcError
from mrc.core.model import Offset
from mrc.ports import Shelves
from mrc.sim.streams import FakeShelves, StreamCluster


@pytest.fixture(params=["fake", "real"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Shelves]:
    """One disk, as each process after the other finds it."""
    if request.param == "fake":
        shelves = FakeShelves(StreamCluster())
        return lambda: shelves
    return lambda: RocksShelves(tmp_path / "state")


def test_what_was_applied_is_there_after_a_restart_with_its_offset(disk: Callable[[], Shelves]) -> None:
    shelf = disk().open("log-0", "id")
    assert (shelf.offset(), shelf.get(b"a")) == (0, None)
    shelf.apply({b"a": b"1", b"b": b"", b"c": b"3"}, Offset(3))
    shelf.apply({b"a": None, b"c": b"4"}, Offset(9))
    shelf.close()
    shelf.close()
    again = disk().open("log-0", "id")
    assert (again.offset(), again.get(b"a"), again.get(b"b"), again.get(b"c")) == (9, None, b"", b"4")
    again.close()


def test_items_are_those_with_the_prefix_in_the_order_of_keys(disk: Callable[[], Shelves]) -> None:
    shelf = disk().open("log-0", "id")
    shelf.apply({b"p\xff\xff": b"3", b"o": b"0", b"p": b"1", b"q": b"4", b"p\x00": b"2", b"\x00p": b"5"}, Offset(1))
    assert list(shelf.items(b"p")) == [(b"p", b"1"), (b"p\x00", b"2"), (b"p\xff\xff", b"3")]
    assert list(shelf.items(b"x")) == []
    shelf.close()


def test_items_begin_where_it_is_said(disk: Callable[[], Shelves]) -> None:
    shelf = disk().open("log-0", "id")
    shelf.apply({b"p1": b"", b"p2": b"", b"p3": b"", b"q": b""}, Offset(1))
    assert [key for key, _ in shelf.items(b"p", b"p2")] == [b"p2", b"p3"]
    assert [key for key, _ in shelf.items(b"p", b"a")] == [b"p1", b"p2", b"p3"]
    assert list(shelf.items(b"p", b"q")) == []
    shelf.close()


def test_shelves_are_apart_and_one_for_another_log_is_empty(disk: Callable[[], Shelves]) -> None:
    shelf = disk().open("log-0", "id")
    shelf.apply({b"a": b"1"}, Offset(3))
    other = disk().open("log-1", "id")
    assert (other.offset(), other.get(b"a")) == (0, None)
    shelf.close()
    other.close()
    anew = disk().open("log-0", "another id")
    assert (anew.offset(), anew.get(b"a")) == (0, None)
    anew.apply({b"a": b"2"}, Offset(1))
    anew.close()
    disk().wipe("log-0")
    wiped = disk().open("log-0", "another id")
    assert (wiped.offset(), wiped.get(b"a")) == (0, None)
    wiped.close()


def test_a_folder_that_another_process_has_is_refused(tmp_path: Path) -> None:
    shelf = RocksShelves(tmp_path).open("log-0", "id")
    with pytest.raises(MrcError, match="another process has it") as caught:
        RocksShelves(tmp_path).open("log-0", "id")
    assert caught.value.code == "DISK_FAILED"
    shelf.close()

"""Stamps are read and written as the vectors say, and each is later than all that its writer had seen."""

from __future__ import annotations

import json
import random
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mrc.client import Seen, Stamper
from mrc.core.conflict.events import Hlc
from mrc.core.conflict.headers import REGIONS_MAX, Stamp, Unreadable, headers, read_seen, read_stamp
from mrc.core.model import Region

VECTORS = json.loads((Path(__file__).parents[2] / "docs" / "examples" / "stamps.json").read_text())


def told(case: dict[str, Any]) -> list[tuple[str, bytes | None]]:
    return [(name, value.encode()) for name, value in case["headers"].items()]


@pytest.mark.parametrize("case", VECTORS["good"], ids=lambda case: case["name"])
def test_a_good_vector_is_read_and_written_alike(case: dict[str, Any]) -> None:
    stamp = read_stamp(told(case))
    hlc = Hlc(case["wall_ms"], case["counter"])
    vector = {Region(region): number for region, number in case["vector"].items()}
    assert stamp == Stamp(Region(case["origin"]), case["id"], vector, hlc)
    assert headers(stamp) == told(case)
    assert read_seen(told(case)) == (vector, hlc)


@pytest.mark.parametrize("case", VECTORS["bad"], ids=lambda case: case["name"])
def test_a_bad_vector_is_refused_with_its_reason(case: dict[str, Any]) -> None:
    with pytest.raises(Unreadable) as caught:
        read_stamp(told(case))
    assert caught.value.reason == case["reason"]


def test_a_header_twice_too_long_or_without_value_is_refused() -> None:
    good = told(VECTORS["good"][0])
    many = ",".join(f"r{number:02}=1" for number in range(REGIONS_MAX + 1)).encode()
    wrong: list[tuple[str, bytes | None]] = [("mrc-vv", None), ("mrc-vv", b"east=1" * 1000), ("mrc-vv", many), ("mrc-hlc", b"\xff.0")]
    for found in [[*good, good[0]], *([one, *(other for other in good if other[0] != one[0])] for one in wrong)]:
        with pytest.raises(Unreadable) as caught:
            read_stamp(found)
        assert caught.value.reason == "bad-stamp"


def test_other_headers_are_left_alone() -> None:
    good = told(VECTORS["good"][0])
    assert read_stamp([("trace", None), *good, ("trace", b"\xff")]) == read_stamp(good)
    assert read_seen([("trace", b"1")]) == ({}, Hlc(0))


def test_every_stamp_is_later_than_all_that_its_writer_had_seen_whatever_the_clocks_say() -> None:
    choose = random.Random(7)
    now = {region: 1_700_000_000_000 + choose.randrange(10_000) for region in ("east", "west")}
    ids = iter(range(10_000))
    stampers = {region: Stamper(region, now_ms=partial(now.__getitem__, region), new_id=lambda: str(next(ids))) for region in now}
    seen = {(region, key): Seen() for region in now for key in "ab"}
    for _ in range(2_000):
        region, key = choose.choice(("east", "west")), choose.choice("ab")
        now[region] += choose.choice((0, 0, 1, -3, 20))
        before = (dict(seen[region, key].vector), seen[region, key].hlc)
        found = stampers[region].stamp(seen[region, key])
        stamp = read_stamp([*found])
        assert stamp.hlc > before[1]
        assert stamp.number > before[0].get(Region(region), 0)
        assert {**before[0], Region(region): stamp.number} == stamp.vector
        if choose.random() < 0.5:
            seen["west" if region == "east" else "east", key].add([*found])


def test_a_clock_that_is_far_ahead_is_not_followed() -> None:
    stamper, seen = Stamper("east", now_ms=lambda: 1_000_000), Seen()
    seen.add([*headers(Stamp(Region("west"), "w", {Region("west"): 1}, Hlc(99_000_000)))])
    stamp = read_stamp([*stamper.stamp(seen, "e")])
    assert (stamp.id, stamp.hlc) == ("e", Hlc(1_000_000))
    assert stamp.seen == {"west": 1}


def test_more_events_in_a_millisecond_than_its_counter_has_still_get_numbers_that_grow() -> None:
    stamper, seen = Stamper("east", now_ms=lambda: 1), Seen()
    numbers = [read_stamp([*stamper.stamp(seen)]).number for _ in range(40_000)]
    assert numbers == sorted(set(numbers))

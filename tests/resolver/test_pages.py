"""Pages say what is pending, whatever has become of whichever event, and whenever they are read again."""

from __future__ import annotations

import random

import pytest

from mrc.core.conflict.events import EntityEvent, Hlc
from mrc.core.conflict.partition import Stream, is_final
from mrc.core.conflict.taking import Pending
from mrc.core.model import Region
from mrc.resolver import pages
from mrc.resolver.pages import Pages

REGIONS = (Region("east"), Region("west"))


def pending(region: Region, place: int, wall_ms: int) -> Pending:
    event = EntityEvent("order/1", f"{region}-{place}", region, place + 1, {}, Hlc(wall_ms))
    return Pending(b"1", event, b"x" * (place % 7), place, new=True)


def named(events: Pages | dict[str, Pending]) -> dict[str, Hlc]:
    return {one.event.id: one.event.hlc for one in (events.values() if isinstance(events, dict) else events)}


@pytest.mark.parametrize("seed", range(60))
def test_what_is_written_down_is_what_is_pending(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "EVENTS_MAX", 4)
    monkeypatch.setattr(pages, "BYTES_MAX", 12)
    choose = random.Random(seed)
    shelf: dict[bytes, bytes] = {}
    streams = {region: Stream() for region in REGIONS}
    final_ms = -1
    alive: dict[str, Pending] = {}

    def read() -> Pages:
        return Pages(sorted(shelf.items()), lambda one: is_final(one, streams, final_ms))

    now = read()
    for _ in range(40):
        for region in REGIONS:
            stream = streams[region]
            for _ in range(choose.randrange(4)):
                one = pending(region, stream.arrived, final_ms + 1 + choose.randrange(60))
                stream.arrived += 1
                alive[one.event.id] = one
                now.add(one)
            # Some of the events that are not sealed are now, one of them perhaps with another clock.
            sealed = choose.randrange(stream.sealed, stream.arrived + 1)
            for one in [one for one in alive.values() if one.event.origin == region and stream.sealed <= one.place < sealed]:
                if choose.random() < 0.1:
                    one.event = EntityEvent("order/1", one.event.id, region, one.place + 1, {}, Hlc(final_ms + 40, one.place + 1))
                    now.change(one)
            stream.sealed = sealed
        final_ms += choose.randrange(30)
        for one in [one for one in alive.values() if is_final(one, streams, final_ms)]:
            now.drop(one)
            del alive[one.event.id]
        for key, value in now.writes().items():
            if value is None:
                del shelf[key]
            else:
                shelf[key] = value
        assert named(read()) == named(now) == named(alive)
        if choose.random() < 0.2:
            now = read()
            alive = {one.event.id: one for one in now}
    assert not alive or shelf


def test_what_came_together_is_one_record_and_what_is_final_at_once_is_none() -> None:
    east = REGIONS[0]
    now = Pages([], lambda one: False)
    events = [pending(east, place, 10) for place in range(5)]
    for one in events:
        now.add(one)
    now.drop(events[0])
    (key,) = now.writes()
    assert now.writes() == {}
    for one in events[1:4]:
        now.drop(one)
        assert now.writes() == {}
    now.drop(events[4])
    assert now.writes() == {key: None}

"""What somebody else writes neither stops a resolver nor lets regions decide otherwise from one another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from mrc.core.conflict.entity import Decision, Rules
from mrc.core.conflict.events import EntityEvent, Hlc
from mrc.core.conflict.headers import Stamp, headers
from mrc.core.conflict.marks import Mark
from mrc.core.conflict.partition import Given, Kept, Partition, Pending
from mrc.core.conflict.rules import Manual, Rule, RuleSet
from mrc.core.model import Offset, Region, encode
from mrc.resolver.kinds import kind_of
from mrc.resolver.pages import Pages
from mrc.resolver.task import _given_key
from mrc.sim.clock import FakeClock
from tests.resolver.world import TOPIC, Site

EAST, WEST = Region("east"), Region("west")
RULES = Rules(RuleSet("order", (Rule("ask", Manual(10)),), (EAST, WEST), "json:$.event"))
KIND = kind_of(TOPIC, RULES)


class Versions:
    def rules(self, version: str) -> Rules:
        return RULES

    def read_again(self, one: Pending, version: str) -> None:
        raise NotImplementedError


class Region1:
    def __init__(self) -> None:
        self.kept: dict[bytes, Kept] = {}
        self.partition = Partition(RULES.hash, Versions(), {}, [], [], {})
        self.offset = 0

    def load(self, key: bytes) -> Kept:
        return self.kept.setdefault(key, Kept())

    def event(self, id: str, origin: Region, number: int, ms: int, key: bytes = b"1", seen: Mapping[Region, int] | None = None) -> None:
        event = EntityEvent("order/1", id, origin, number, seen or {}, Hlc(ms), "Placed")
        self.partition.arrive(key, event, b"{}", new=not self.load(key).knows(event))

    def mark(self, region: Region, ms: int, last: str = "", horizon: int = 10**9) -> None:
        self.offset += 1
        self.partition.mark(region, Offset(self.offset), Mark(self.offset, last, ms, horizon, RULES.hash))

    def say(self, region: Region, id: str, winner: str, ms: int, conflict: str, at_ms: int = 0) -> None:
        self.offset += 1
        self.partition.mark(region, Offset(self.offset), Decision(id, "1", conflict, winner, ms, region, "ann", "", at_ms))

    def settle(self) -> Any:
        return self.partition.settle(self.load)


def test_a_clock_that_was_far_ahead_takes_no_later_event_along_and_is_known_when_it_comes_again() -> None:
    r = Region1()
    r.event("far", EAST, 10_000_000, 10_000_000)
    r.mark(EAST, 100, "far", horizon=300_100)
    r.mark(WEST, 100)
    (refused,) = r.settle().steps[b"1"]
    assert refused.refused
    for id, number in (("far", 10_000_000), ("right", 150)):  # the flow sends the first one again, and this horizon lets it pass
        r.event(id, EAST, number, number)
    r.mark(EAST, 200, "right")
    r.mark(WEST, 200)
    taken = [one.outcome.winner.id for one in r.settle().steps.get(b"1", ()) if one.outcome is not None]
    assert taken == ["right"]
    r.mark(EAST, 20_000_000, "right")
    r.mark(WEST, 20_000_000)
    assert not [one for one in r.settle().steps.get(b"1", ()) if one.outcome is not None or one.refused]
    assert r.kept[b"1"].entity.registers[EAST].head.id == "right"


def test_equal_ids() -> None:
    r = Region1()
    r.event("same", EAST, 1, 50)
    r.event("same", WEST, 1, 60)
    r.mark(EAST, 20_000, "same")
    r.mark(WEST, 20_000, "same")
    r.settle()


def open_conflict(r: Region1) -> str:
    r.event("e", EAST, 1, 50)
    r.event("w", WEST, 1, 60)
    r.mark(EAST, 100, "e")
    r.mark(WEST, 100, "w")
    r.settle()
    assert r.kept[b"1"].open is not None
    return r.kept[b"1"].open.id


@pytest.mark.parametrize("between", [False, True])
def test_same_decision_id(between: bool) -> None:
    r = Region1()
    conflict = open_conflict(r)
    r.say(EAST, "ticket", "e", 150, "no such")
    r.mark(EAST, 200, "e")
    r.mark(WEST, 200, "w")
    if between:
        r.settle()
    r.say(EAST, "ticket", "e", 250, conflict)
    r.mark(EAST, 300, "e")
    r.mark(WEST, 300, "w")
    r.settle()
    assert r.kept[b"1"].entity.closed is not None, between


def test_page_headers() -> None:
    pages = Pages([], lambda one: False)
    for i in range(20):
        pages.add(Pending(b"1", EntityEvent("order/1", f"e{i}", EAST, i + 1, {}, Hlc(1)), b"{}", i, True, i, (("trace", b"x" * 900_000),)))
    assert max(len(v or b"") for v in pages.writes().values()) < 8 << 20


@pytest.mark.parametrize("what", ["at", "mark", "nest"])
def test_site(what: str) -> None:
    site = Site("east", KIND, FakeClock(10_000))
    site.start()
    site.tick()
    site.tick()
    m = site.topics.marks[WEST]
    site.cluster.write(m, 0, b"mark", encode(Mark(0, "", 9000, 10**9, RULES.hash)), ())
    if what == "at":
        site.cluster.write(m, 0, b"decision", encode(Decision("x", "k", "c", "w", 9500, WEST, "a", "", 10**30)), ())
    if what == "mark":
        site.cluster.write(m, 0, b"mark", encode(Mark(10**30, "", 9100, 10**9, RULES.hash)), ())
    if what == "nest":
        for d in range(850, 1000):
            s = headers(Stamp(EAST, f"n{d}", {EAST: d}, Hlc(9000 + d)))
            site.cluster.write(TOPIC, 0, b"17", b'{"event":' + b"[" * d + b"]" * d + b"}", s)
    site.resolvers["a"].tick(0)
    site.resolvers["a"].tick(0)


def test_given_key() -> None:
    a = Given(EAST, Decision("x", "k1", "c", "w", 1, EAST, "a"))
    b = Given(EAST, Decision("x", "k2", "c", "w", 1, EAST, "a"))
    assert _given_key(a) != _given_key(b)

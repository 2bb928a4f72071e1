"""What somebody else writes neither stops a resolver nor lets regions decide otherwise from one another."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from mrc.core.conflict import partition, taking
from mrc.core.conflict.entity import Decision, Rules
from mrc.core.conflict.events import EntityEvent, Hlc
from mrc.core.conflict.headers import Stamp, headers
from mrc.core.conflict.marks import Mark
from mrc.core.conflict.partition import DECIDED_AHEAD_MS_MAX, Partition
from mrc.core.conflict.rules import Manual, Rule, RuleSet
from mrc.core.conflict.taking import Answered, Given, Kept, Pending
from mrc.core.model import Offset, Region, encode
from mrc.resolver.kinds import kind_of
from mrc.resolver.pages import Pages
from mrc.resolver.task import _given_key
from mrc.sim.clock import FakeClock
from tests.resolver.world import TOPIC, Site

EAST, WEST = Region("east"), Region("west")
RULES = Rules(RuleSet("order", (Rule("ask", Manual(1_000)),), (EAST, WEST), "json:$.event"))
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


def test_a_decision_for_an_event_that_its_conflict_does_not_have_leaves_it_open_and_says_which_it_has() -> None:
    r = Region1()
    conflict = open_conflict(r)
    r.say(EAST, "ticket", "nobody", 150, conflict)
    r.mark(EAST, 200, "e")
    r.mark(WEST, 200, "w")
    (answer,) = (step for step in r.settle().steps[b"1"] if isinstance(step, Answered))
    assert answer.why is not None
    assert (answer.why.reason, answer.conflict) == ("no-candidate", None)
    assert answer.why.detail.endswith("there are e, w")
    assert r.kept[b"1"].open is not None


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("again", [False, True])
def test_a_decision_whose_clock_was_far_ahead_counts_nowhere_also_when_it_comes_again_nearer_to_it(again: bool, restarted: bool) -> None:
    r = Region1()
    conflict = open_conflict(r)
    r.say(EAST, "far", "e", 100 + DECIDED_AHEAD_MS_MAX + 1, conflict)
    (said,) = r.settle().given
    assert said.unfit
    for region, last in ((EAST, "e"), (WEST, "w")):
        r.mark(region, 200, last)
    assert r.settle().given == []
    if restarted:
        streams, asking = r.partition.streams, {b"1": r.kept[b"1"].open.until_ms}  # type: ignore[union-attr]
        r.partition = Partition(RULES.hash, Versions(), streams, [], [said], asking, r.partition.final_ms)
    if again:
        r.say(EAST, "far", "e", 100 + DECIDED_AHEAD_MS_MAX + 1, conflict)
        assert r.settle().given == []
    standing = r.partition.standing(b"1", r.kept[b"1"])
    assert standing is not None
    assert standing.final
    for region, last in ((EAST, "e"), (WEST, "w")):
        r.mark(region, 2 * DECIDED_AHEAD_MS_MAX, last)
    assert r.settle().steps == {b"1": [Answered(None, said)]}
    assert r.kept[b"1"].open is not None
    assert not r.partition._given


def test_a_decision_far_ahead_is_dead_lettered_once_where_it_was_given() -> None:
    site = Site("east", KIND, FakeClock(10_000))
    site.start()
    for _ in range(3):
        site.cluster.write(site.topics.own_marks, 0, b"decision", encode(Decision("x", "k", "c", "w", 10**9, EAST, "a")), ())
        site.cluster.write(site.topics.marks[WEST], 0, b"decision", encode(Decision("y", "k", "c", "w", 10**9, WEST, "a")), ())
        site.cluster.write(site.topics.own_marks, 0, b"mark", encode(Mark(0, "", 9_000, 10**9, RULES.hash)), ())
        site.tick()
        site.tick()
    letters = [dict(one.headers) for one in site.records(site.topics.dead_letters)]
    assert [(one["mrc-event-id"], one["mrc-reason"]) for one in letters] == [(b"x", b"bad-clock")]
    assert site.records(site.topics.resolved) == []


@pytest.mark.parametrize("first", [EAST, WEST])
def test_of_decisions_alike_in_clock_time_and_id_the_region_says_which_is_first(first: Region) -> None:
    r = Region1()
    conflict = open_conflict(r)
    for region in (first, WEST if first == EAST else EAST):
        r.say(region, "ticket", {EAST: "e", WEST: "w"}[region], 150, conflict)
        r.settle()
    for region, last in ((EAST, "e"), (WEST, "w")):
        r.mark(region, 200, last)
    r.settle()
    closed = r.kept[b"1"].entity.closed
    assert closed is not None
    assert closed.decision is not None
    assert closed.decision.region == EAST


@pytest.mark.parametrize("seed", range(60))
def test_what_stands_by_decisions_that_wait_is_the_same_when_it_is_worked_out_anew(seed: int) -> None:
    choose, r = random.Random(seed), Region1()
    conflict = open_conflict(r)
    last, at = {EAST: "e", WEST: "w"}, {EAST: 100, WEST: 100}
    for number in range(2, 60):
        region = choose.choice((EAST, WEST))
        match choose.randrange(10):
            case 0:
                r.say(region, f"d{number}", choose.choice(("e", "w")), at[region] + choose.randrange(1, 40), conflict)
            case 1 | 2 if region == EAST or number > 40:  # west's marks come late: what is new waits
                at[region] += choose.randrange(1, 20)
                r.mark(region, at[region], last[region])
            case _:
                ms = choose.randrange(100, 200) if choose.random() < 0.3 else 100 + number * 2
                seen = {WEST if region == EAST else EAST: choose.randrange(1, number)} if choose.random() < 0.5 else {}
                last[region] = f"{region}{number}"
                r.event(last[region], region, number, ms, seen=seen)
        r.settle()
        kept = r.load(b"1")
        quick = r.partition.standing(b"1", kept)
        held, r.partition._heard = r.partition._heard, {}
        assert r.partition.standing(b"1", kept) == quick, number
        r.partition._heard = held


def test_an_event_behind_a_decision_that_waits_does_not_cost_what_waits_already(monkeypatch: pytest.MonkeyPatch) -> None:
    r, taken = Region1(), 0
    conflict = open_conflict(r)
    r.say(EAST, "ticket", "e", 150, conflict)
    r.settle()
    take = taking.taken

    def counted(kept: Kept, pending: Sequence[Pending], *more: Any) -> Any:
        nonlocal taken
        taken += len(pending)
        return take(kept, pending, *more)

    monkeypatch.setattr(partition, "taken", counted)
    for number in range(2, 302):
        r.event(f"e{number}", EAST, number, 150 + number)
        assert r.partition.standing(b"1", r.load(b"1")) is not None
    assert taken < 2 * 300


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

"""Whatever stands in a topic is read, or dead-lettered with its reason; the resolver lives on and loses nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from mrc.core.conflict.entity import Rules
from mrc.core.conflict.events import EntityEvent, Hlc
from mrc.core.conflict.headers import Stamp, Unreadable, headers, read_seen
from mrc.core.conflict.rules import Delta, Rule, RuleSet
from mrc.core.conflict.taking import Pending, Wrong
from mrc.core.model import Region
from mrc.ports import Arrived
from mrc.resolver import loop
from mrc.resolver.comparing import compare
from mrc.resolver.kinds import kind_of
from mrc.resolver.reading import DEPTH_MAX, FIELD_BYTES_MAX, KEY_BYTES_MAX, NESTED_MAX, VALUE_BYTES_MAX, read_again, read_event
from mrc.resolver.replaying import dry_run
from mrc.resolver.writing import LETTER_BYTES_MAX
from mrc.sim.clock import FakeClock
from mrc.sim.streams import FakeLogs, FakeShelves
from tests.resolver.pair import Pair
from tests.resolver.world import TOPIC, Site, headers_of, mark_of, value_of

EAST, WEST = Region("east"), Region("west")
FIELDS = {"note": "json:$.more.note", "reserved": "json:$.reserved", "by": "header:by"}
KIND = kind_of(TOPIC, Rules(RuleSet("order", (Rule("sum", Delta(("reserved",))),), (EAST, WEST), "json:$.event", FIELDS)))
STAMP = headers(Stamp(EAST, "e1", {EAST: 1}, Hlc(1_000)))


BY_RULES = ("no-type", "bad-field", "bad-header")
"""What depends on the rules waits for its turn."""


def record(value: bytes | None, key: bytes | None = b"17", stamp: Any = STAMP) -> Arrived:
    return Arrived(TOPIC, 0, 0, key, value, tuple(stamp))


def nested(depth: int) -> bytes:
    return b'{"event": "Placed", "more": {"note": ' + b"[" * depth + b"]" * depth + b"}}"


def deeper(frames: int, ask: Callable[[], str]) -> str:
    """What is answered so much deeper in the program."""
    return ask() if frames == 0 else deeper(frames - 1, ask)


def reason_of(one: Arrived) -> str:
    try:
        _, wrong = read_event(one, KIND, EAST)
    except Unreadable as error:
        return error.reason
    return "" if wrong is None else wrong.reason


@pytest.mark.parametrize(("open_", "close"), [(b"[", b"]"), (b'{"[":', b"}")])
def test_how_deep_a_value_may_be_nested_does_not_depend_on_where_in_the_program_it_is_read(open_: bytes, close: bytes) -> None:
    for depth in (NESTED_MAX - 2, NESTED_MAX - 1, NESTED_MAX, 700, *range(850, 1000, 7), 5_000):
        inner = b'"]}\\"[{"'
        one = record(b'{"event": "Placed", "deep": ' + open_ * depth + inner + close * depth + b"}")
        wanted = "" if depth < NESTED_MAX else "not-json"
        assert [deeper(frames, lambda one=one: reason_of(one)) for frames in (0, 10, 30, 200)] == [wanted] * 4  # type: ignore[misc]


def test_an_event_that_was_written_down_and_is_nested_too_deep_is_refused_when_it_is_read_again() -> None:
    event, _ = read_event(record(b'{"event": "Placed"}'), KIND, EAST)
    one = Pending(b"17", event, b'{"event": "Placed", "deep": ' + b"[" * 900 + b"]" * 900 + b"}", 0, True)
    read_again(one, KIND)
    assert one.wrong is not None
    assert one.wrong.reason == "not-json"


WRONG: dict[str, tuple[str, Arrived]] = {
    "no key": ("no-key", record(b"{}", None)),
    "a key that is no text": ("bad-key", record(b"{}", b"\xff")),
    "a hostile key": ("too-large", record(b"{}", b"k" * (KEY_BYTES_MAX + 1))),
    "a hostile value": ("too-large", record(b'{"event": "' + b"x" * VALUE_BYTES_MAX + b'"}')),
    "nothing": ("not-json", record(b"")),
    "no JSON": ("not-json", record(b"{event: Placed}")),
    "JSON that is cut off": ("not-json", record(b'{"event": "Pla')),
    "no UTF-8": ("not-json", record(b'{"event": "\xff"}')),
    "JSON nested without end": ("not-json", record(b"[" * 200_000)),
    "no object": ("not-an-object", record(b'["Placed"]')),
    "a number": ("not-an-object", record(b"17")),
    "no type": ("no-type", record(b'{"kind": "Placed"}')),
    "a type that is no text": ("no-type", record(b'{"event": 7}')),
    "an empty type": ("no-type", record(b'{"event": ""}')),
    "a hostile type": ("no-type", record(b'{"event": "' + b"x" * 300 + b'"}')),
    "a field nested too deeply": ("bad-field", record(nested(DEPTH_MAX + 1))),
    "a field beyond 64 bits": ("bad-field", record(b'{"event": "Placed", "more": {"note": 18446744073709551616000}}')),
    "a hostile field": ("bad-field", record(b'{"event": "Placed", "more": {"note": "' + b"x" * FIELD_BYTES_MAX + b'"}}')),
    "a summand that is no number": ("bad-field", record(b'{"event": "Placed", "reserved": "5"}')),
    "a summand that is a truth": ("bad-field", record(b'{"event": "Placed", "reserved": true}')),
    "a hostile summand": ("bad-field", record(b'{"event": "Placed", "reserved": 1e300}')),
    "no stamp": ("no-stamp", record(b'{"event": "Placed"}', stamp=())),
    "another region's stamp": ("wrong-origin", record(b"{}", stamp=headers(Stamp(WEST, "w", {WEST: 1}, Hlc(1))))),
    "a region that nobody knows": ("unknown-region", record(b"{}", stamp=headers(Stamp(EAST, "e", {EAST: 1, Region("mars"): 1}, Hlc(1))))),
    "a header that is no text": ("bad-header", record(b'{"event": "Placed"}', stamp=[*STAMP, ("by", b"\xff")])),
}


@pytest.mark.parametrize(("reason", "wrong"), WRONG.values(), ids=WRONG.keys())
def test_a_record_that_is_no_event_is_refused_with_its_reason(reason: str, wrong: Arrived) -> None:
    try:
        _, why = read_event(wrong, KIND, EAST)
    except Unreadable as error:
        why = Wrong(error.reason, error.detail)
        assert reason not in BY_RULES
    else:
        assert reason in BY_RULES
    assert why is not None
    assert why.reason == reason
    assert len(why.detail) < 400


def test_what_rules_look_at_is_read_where_the_file_says() -> None:
    event, _ = read_event(record(nested(DEPTH_MAX), stamp=[*STAMP, ("by", b"ann"), ("by", b"bob")]), KIND, EAST)
    assert (event.entity, event.id, event.number, event.type, event.fields["by"]) == ("order/17", "e1", 1, "Placed", "bob")
    gone, _ = read_event(record(None), KIND, EAST)
    assert (gone.deleted, gone.type, gone.fields) == (True, "", {})


def test_dead_letters_say_why_and_where_and_what_follows_is_resolved() -> None:
    site = Site("east", KIND, FakeClock(10_000))
    site.start()
    written = []
    for number, (reason, wrong) in enumerate(WRONG.values(), 1):
        own = headers(Stamp(EAST, f"wrong-{number}", {EAST: number}, Hlc(1_000 + number)))
        written.append((reason, msgspec.structs.replace(wrong, headers=(*own, *wrong.headers[4:])) if reason in BY_RULES else wrong))
    for _, wrong in written:
        site.cluster.write(TOPIC, 0, wrong.key, wrong.value, wrong.headers)
    site.cluster.write(TOPIC, 0, b"17", b"x" * (LETTER_BYTES_MAX + 1), [("h", b"y" * 100_000)])
    good = headers(Stamp(EAST, "good", {EAST: 100}, Hlc(2_000)))
    site.cluster.write(TOPIC, 0, b"17", b'{"event": "Placed"}', good)
    marks = (b'{"offset": "x"}', b'{"rules": "\xff"}')
    for mark in marks:
        site.cluster.write(site.topics.marks[WEST], 0, b"mark", mark, ())
    site.tick()
    site.tick()
    early = {dict(one.headers)["mrc-reason"] for one in site.records(site.topics.dead_letters)}
    assert early.isdisjoint(reason.encode() for reason in BY_RULES)
    assert dict(site.resolved()["17"].headers)["mrc-event-id"] == b"good"
    site.cluster.write(site.topics.marks[WEST], 0, b"", mark_of(site, 0, last="", offset=0, clock_ms=9_000), ())
    for _ in range(3):
        site.clock.sleep(0.6)
        site.tick()
    letters = {dict(one.headers)["mrc-source"]: one for one in site.records(site.topics.dead_letters)}
    assert len(letters) == len(WRONG) + 1 + len(marks)
    for number, (reason, wrong) in enumerate(written):
        letter = letters[f"{TOPIC}-0@{number}".encode()]
        assert (letter.key, letter.value) == (wrong.key, wrong.value)
        assert letter.headers[: len(wrong.headers)] == wrong.headers
        assert dict(letter.headers)["mrc-reason"] == reason.encode()
    large = letters[f"{TOPIC}-0@{len(WRONG)}".encode()]
    assert large.value is None
    assert dict(large.headers)["mrc-left-out"] == f"headers, value of {LETTER_BYTES_MAX + 1} bytes".encode()
    for number in range(len(marks)):
        assert dict(letters[f"{site.topics.marks[WEST]}-0@{number}".encode()].headers)["mrc-reason"] == b"bad-mark"
    said = dict(site.resolved()["17"].headers)
    assert (said["mrc-event-id"], said["mrc-final"]) == (b"good", b"true")


def test_an_event_with_a_clock_far_ahead_counts_nowhere_and_is_kept() -> None:
    clock = FakeClock(10_000)
    for region in (EAST, WEST):
        site = Site(region, KIND, clock)
        site.start()
        wild = headers(Stamp(EAST, "wild", {EAST: 1}, Hlc(10_000_000)))
        good = headers(Stamp(EAST, "good", {EAST: 2}, Hlc(5_000)))
        for stamp in (wild, good):
            site.cluster.write(site.topics.events[EAST], 0, b"17", b'{"event": "Placed"}', stamp)
        for origin, last, offset in ((EAST, "good", 2), (WEST, "", 0)):
            site.cluster.write(site.topics.marks[origin], 0, b"", mark_of(site, 0, last=last, offset=offset, clock_ms=9_000), ())
        for _ in range(3):
            site.tick()
        said = dict(site.resolved()["17"].headers)
        assert (said["mrc-event-id"], said["mrc-final"]) == (b"good", b"true")
        letters = [(dict(one.headers)["mrc-event-id"], dict(one.headers)["mrc-reason"]) for one in site.records(site.topics.dead_letters)]
        assert letters == [(b"wild", b"clock-ahead")]


def test_an_event_that_was_overtaken_is_kept_where_it_was_written() -> None:
    clock = FakeClock(10_000)
    for region in (EAST, WEST):
        site = Site(region, KIND, clock)
        site.start()
        for number, id in ((2, "second"), (1, "first")):
            stamp = headers(Stamp(EAST, id, {EAST: number}, Hlc(5_000 + 10 - number)))
            site.cluster.write(site.topics.events[EAST], 0, b"17", b'{"event": "Placed"}', stamp)
        for origin, last, offset in ((EAST, "first", 2), (WEST, "", 0)):
            site.cluster.write(site.topics.marks[origin], 0, b"", mark_of(site, 0, last=last, offset=offset, clock_ms=9_000), ())
        for _ in range(3):
            site.tick()
        assert dict(site.resolved()["17"].headers)["mrc-event-id"] == b"second"
        letters = [dict(one.headers)["mrc-reason"] for one in site.records(site.topics.dead_letters)]
        assert letters == ([b"overtaken"] if region == EAST else [])


def test_marks_made_by_other_rules_make_nothing_final_and_are_announced() -> None:
    site = Site("east", KIND, FakeClock(10_000))
    site.start()
    site.cluster.write(TOPIC, 0, b"17", b'{"event": "Placed"}', STAMP)
    other = mark_of(site, 0, last="", offset=0, clock_ms=9_000, rules="other")
    site.cluster.write(site.topics.marks[WEST], 0, b"", other, ())
    for _ in range(6):
        site.clock.sleep(0.6)
        site.tick()
    task = site.resolvers["a"].tasks[TOPIC, 0]
    assert task.foreign == {WEST: "other"}
    assert dict(site.resolved()["17"].headers)["mrc-final"] == b"false"
    assert "other-rules" in site.said
    for clock_ms in (9_500, 9_501):
        site.cluster.write(site.topics.marks[WEST], 0, b"", mark_of(site, 0, last="", offset=0, clock_ms=clock_ms), ())
    site.tick()
    assert task.foreign == {}
    assert dict(site.resolved()["17"].headers)["mrc-final"] == b"true"


def test_merged_fields_stand_in_the_value_where_rules_read_them() -> None:
    clock = FakeClock(10_000)
    site = Site("east", KIND, clock)
    site.start()
    west = headers(Stamp(WEST, "w1", {WEST: 1}, Hlc(1_001)))
    site.cluster.write(TOPIC, 0, b"17", b'{"event": "Placed", "reserved": 2}', STAMP)
    site.cluster.write(site.topics.events[WEST], 0, b"17", b'{"event": "Placed", "reserved": 3, "kept": [1]}', west)
    site.tick()
    site.tick()
    stands = site.resolved()["17"]
    assert json.loads(stands.value or b"") == {"event": "Placed", "kept": [1], "reserved": 5}
    said = dict(stands.headers)
    assert (said["mrc-vv"], said["mrc-hlc"], said["mrc-fields"]) == (b"east=1,west=1", b"1001.0", b'{"reserved":5}')


def test_what_is_made_of_a_late_event_with_a_large_number_has_a_clock_that_its_readers_can_read() -> None:
    pair = Pair(KIND)
    pair.settle()
    number = 2**60  # such as `Stamper` makes of the wall clock
    east = next(iter(pair.sites.values()))
    late = EntityEvent("order/17", "late", east.region, number, {}, Hlc(1), "Placed")
    east.cluster.write("orders", 0, b"17", value_of(late), headers_of(late))
    pair.settle()
    marks = [json.loads(record.value or b"")["clock_ms"] for record in east.cluster.read(east.topics.own_marks, 0)]
    for site in pair.sites.values():
        record = site.resolved()["17"]
        vector, clock = read_seen(record.headers)
        assert (vector, dict(record.headers)["mrc-final"]) == ({east.region: number}, b"true")
        assert clock.wall_ms - 1 in marks


def test_what_was_shown_with_an_event_that_was_then_refused_is_withdrawn_in_every_region() -> None:
    pair = Pair(KIND)
    east = pair.sites[EAST]
    far = Stamp(EAST, "far", {EAST: 1}, Hlc(10_000_000))
    east.cluster.write(TOPIC, 0, b"17", b'{"event": "Placed"}', headers(far))
    for _ in range(3):
        pair.settle()
    shown = [(record.value, dict(record.headers)["mrc-final"]) for record in east.records(east.topics.resolved)]
    assert shown == [(b'{"event": "Placed"}', b"false"), (None, b"true")]
    logs = {region: FakeLogs(site.cluster) for region, site in pair.sites.items()}
    compared = compare(logs, [KIND], pair.clock, 0)
    assert (compared.agrees, compared.entities, compared.provisional) == (True, 1, 0)
    found = dry_run(logs[EAST], FakeShelves(east.cluster), [(KIND, KIND)], EAST, None, {})
    assert (found.entities, found.unjudged_entities) == (0, 0)
    east.cluster.write(TOPIC, 0, b"17", b'{"event": "Placed"}', headers(Stamp(EAST, "right", {EAST: 2}, Hlc(pair.clock.now_ms()))))
    for _ in range(3):
        pair.settle()
    for site in pair.sites.values():
        stands = site.resolved()["17"]
        assert (stands.value, dict(stands.headers)["mrc-event-id"]) == (b'{"event": "Placed"}', b"right")


@pytest.mark.parametrize("then", ["", "another comes", "it dies"])
def test_what_was_shown_because_another_event_of_its_entity_was_refused_is_withdrawn_too(
    then: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a resolver that has much to read, so that it shows what is not final only of entities of which something has become final."""
    site = Site("east", KIND, FakeClock(10_000))
    site.start()

    def write(id: str, number: int) -> None:
        stamp = headers(Stamp(EAST, id, {EAST: number}, Hlc(10_000_000)))
        site.cluster.write(TOPIC, 0, b"17", f'{{"event": "{id}"}}'.encode(), stamp)

    def seal(last: str, offset: int, clock_ms: int) -> None:
        for origin, mark in ((EAST, (last, offset)), (WEST, ("", 0))):
            value = mark_of(site, 0, last=mark[0], offset=mark[1], clock_ms=clock_ms)
            site.cluster.write(site.topics.marks[origin], 0, b"", value, ())

    write("far", 1)
    for _ in range(3):
        site.tick()
    monkeypatch.setattr(loop, "BUSY_RECORDS", 0)
    write("farther", 2)
    site.tick()
    seal("far", 1, 9_000)
    for _ in range(3):
        site.tick()
    if then == "another comes":
        write("farthest", 3)
        site.tick()
        seal("farthest", 3, 9_100)
    else:
        seal("farther", 2, 9_100)
    if then == "it dies":
        site.start()
    for _ in range(3):
        site.tick()
    assert [record.value for record in site.records(site.topics.resolved)] == [b'{"event": "far"}', b'{"event": "farther"}', None]


def test_what_was_shown_with_an_event_that_a_refused_one_overtakes_is_withdrawn() -> None:
    site = Site("east", KIND, FakeClock(10_000))
    site.start()
    for id, number, clock_ms, value in (("refused", 2, 8_000, b"{}"), ("overtaken", 1, 8_500, b'{"event": "Placed"}')):
        site.cluster.write(TOPIC, 0, b"17", value, headers(Stamp(EAST, id, {EAST: number}, Hlc(clock_ms))))
    for _ in range(2):
        site.tick()
    for clock_ms in (8_200, 9_000):
        for origin, last, offset in ((EAST, "overtaken", 2), (WEST, "", 0)):
            mark = mark_of(site, 0, last=last, offset=offset, clock_ms=clock_ms)
            site.cluster.write(site.topics.marks[origin], 0, b"", mark, ())
        site.tick()
    shown = [(record.value, dict(record.headers)["mrc-final"]) for record in site.records(site.topics.resolved)]
    assert shown == [(b'{"event": "Placed"}', b"false"), (None, b"true")]


def test_of_what_was_never_shown_nothing_is_withdrawn() -> None:
    pair = Pair(KIND)
    pair.sites[EAST].cluster.write(TOPIC, 0, b"17", b'{"kind": "Placed"}', STAMP)
    for _ in range(3):
        pair.settle()
    for site in pair.sites.values():
        assert site.records(site.topics.resolved) == []
    assert [dict(one.headers)["mrc-reason"] for one in pair.sites[EAST].records(pair.sites[EAST].topics.dead_letters)] == [b"no-type"]

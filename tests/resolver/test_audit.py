"""Conflicts as operators ask for them, against all that a region has written."""

from __future__ import annotations

import base64
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import pytest

from mrc.core.errors import MrcError
from mrc.core.model import Offset, Region, TopicPartition
from mrc.ports import Arrived, Span
from mrc.resolver import audit
from mrc.resolver.audit import Audit, Filter, News
from mrc.resolver.cursors import cursor_of, positions_of
from mrc.resolver.writing import ConflictRecord
from mrc.sim.streams import FakeLogs
from tests.resolver.test_convergence import lived
from tests.resolver.world import Site, World

MANY = 9
"""The seed of a world with many conflicts."""


@pytest.fixture(scope="module")
def world() -> World:
    """A world with many conflicts."""
    return lived(MANY)


def audit_of(world: World, site: Site, warnings: list[str] | None = None) -> Audit:
    return Audit(FakeLogs(site.cluster), site.region, [world.kind], (warnings if warnings is not None else []).append)


def ids(found: list[ConflictRecord]) -> set[str]:
    return {one.id for one in found}


def test_the_newest_are_found_first_whatever_the_stride(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for site, stride in itertools.product(world.sites.values(), (500, 1, 3)):
        monkeypatch.setattr(audit, "STRIDE_RECORDS", stride)
        every = [one for some in site.conflicts().values() for one in some]
        whole = audit_of(world, site).newest(Filter(), 1_000)
        assert ids(whole) == {one["id"] for one in every}
        assert len(whole) == len(ids(whole)) > 5
        assert [one.at_ms for one in whole] == sorted((one.at_ms for one in whole), reverse=True)
        per_partition = {
            partition: [json.loads(record.value or b"")["id"] for record in site.cluster.read(site.topics.conflicts, partition)]
            for partition in range(2)
        }
        last = {id for some in per_partition.values() for id in list(dict.fromkeys(reversed(some)))[:2]}
        assert ids(audit_of(world, site).newest(Filter(), 2)) <= last


def test_filters_leave_what_they_say(world: World) -> None:
    site = next(iter(world.sites.values()))
    asked = audit_of(world, site)
    whole = asked.newest(Filter(), 1_000)
    for one in whole:
        for wanted in (Filter(entity=one.key), Filter(entity=one.entity), Filter(rule=one.rule), Filter(outcome=one.outcome)):
            assert ids(asked.newest(wanted, 1_000)) == {other.id for other in whole if wanted.takes(other)} >= {one.id}
        since = Filter(since_ms=one.at_ms)
        assert ids(asked.newest(since, 1_000)) == {other.id for other in whole if other.at_ms >= one.at_ms}
    assert asked.newest(Filter(entity="nobody"), 10) == []


def test_a_conflict_is_found_by_its_id_in_every_region_and_is_the_same_there(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "STRIDE_RECORDS", 1)
    first, *rest = world.sites.values()
    for one in audit_of(world, first).newest(Filter(), 1_000):
        assert [audit_of(world, site).find(one.id) for site in (first, *rest)] == [one] * len(world.sites)
    assert audit_of(world, first).find("0" * 20) is None


def test_what_comes_is_followed(world: World) -> None:
    site = next(iter(world.sites.values()))
    record, other = site.cluster.read(site.topics.conflicts, 0)[0], site.cluster.read(site.topics.conflicts, 1)[0]
    wanted = Filter(entity=json.loads(record.value or b"")["key"])
    coming = audit_of(world, site).follow(wanted)
    begun = next(coming)
    assert (begun.conflict, next(coming)) == (None, begun)
    site.cluster.write(record.topic, 0, record.key, record.value, record.headers)
    came = next(coming)
    assert came.conflict is not None
    assert came.conflict.id == (record.key or b"").decode()
    assert next(coming) == News(None, came.cursor)
    site.cluster.write(other.topic, 1, other.key, other.value, other.headers)
    beyond = next(coming)
    assert beyond.conflict is None
    assert beyond.cursor != came.cursor
    for cursor, comes in ((begun.cursor, [came.conflict]), (came.cursor, []), (beyond.cursor, [])):
        again = audit_of(world, site).follow(wanted, cursor)
        assert next(again) == News(None, cursor)
        assert [next(again).conflict for _ in comes] == comes
        assert next(again) == News(None, beyond.cursor)
    whole = audit_of(world, site).follow(Filter(since_ms=0))
    assert next(whole).conflict is None
    found = [news.conflict for news in itertools.takewhile(lambda news: news.conflict is not None, whole)]
    assert len(found) == len(site.records(site.topics.conflicts))


class Busy(FakeLogs):
    """Logs in which the same record comes again and again, at the next place each time, and never nothing."""

    def follow(self, begin: Mapping[TopicPartition, Offset], passed: dict[TopicPartition, Offset] | None = None) -> Iterator[list[Arrived]]:
        (tp, at), *_ = begin.items()
        (one, *_), _ = self._cluster.visible(tp, Offset(0), 1)
        for number in range(3):
            yield [msgspec.structs.replace(one, offset=at + number)]


def test_how_far_a_stream_is_is_told_while_only_what_is_not_wanted_comes(world: World) -> None:
    site = next(iter(world.sites.values()))
    begun, *told = Audit(Busy(site.cluster), site.region, [world.kind], pytest.fail).follow(Filter(entity="nobody"))
    assert [news.conflict for news in told] == [None] * 3
    assert len({begun.cursor, *(news.cursor for news in told)}) == 4


def test_a_cursor_at_the_end_holds_also_when_everything_before_it_was_deleted() -> None:
    world = lived(MANY)
    site = next(iter(world.sites.values()))
    coming = audit_of(world, site).follow(Filter(since_ms=0))
    begun = next(coming).cursor
    end = next(itertools.dropwhile(lambda news: news.conflict is not None, coming)).cursor
    for tp, span in FakeLogs(site.cluster).spans([site.topics.conflicts]).items():
        site.cluster.trim(tp, span.end)
    assert next(audit_of(world, site).follow(Filter(), end)) == News(None, end)
    with pytest.raises(MrcError, match="were deleted") as caught:
        next(audit_of(world, site).follow(Filter(), begun))
    assert caught.value.code == "OFFSET_OUT_OF_RANGE"


def test_a_cursor_that_is_none_or_of_elsewhere_is_refused(world: World) -> None:
    here, spans = Region("east"), {TopicPartition("t", number): Span(Offset(5), Offset(9)) for number in range(3)}
    good = cursor_of(here, dict(zip(spans, map(Offset, (5, 7, 9)), strict=True)))
    assert list(positions_of(good, here, spans).values()) == [5, 7, 9]
    more = {**spans, TopicPartition("t", 3): Span(Offset(2), Offset(9)), TopicPartition("u", 0): Span(Offset(1), Offset(4))}
    assert list(positions_of(good, here, more).values()) == [5, 7, 9, 2, 1]
    assert positions_of(good, here, {}) == {}
    for bad in ("", "x", good[:-1], good + "A", good + "!", good + "\u00fc", cursor_of(Region("west"), {})):
        with pytest.raises(MrcError) as caught:
            positions_of(bad, here, spans)
        assert (caught.value.code, caught.value.where) == ("BAD_REQUEST", "cursor")
    for at, retryable in ((4, False), (10, True)):
        with pytest.raises(MrcError) as caught:
            positions_of(cursor_of(here, dict.fromkeys(spans, Offset(at))), here, spans)
        assert (caught.value.code, caught.value.where, caught.value.retryable) == ("OFFSET_OUT_OF_RANGE", "east t-0", retryable)
    told: Any
    for told in ([1, here, {"t": [-1]}], [2, here, {}], [1, here, {"t": ["5"]}], [1, here, {"t": [2**63]}], [1, here], {}, None):
        raw = base64.urlsafe_b64encode(msgspec.msgpack.encode(told)).decode().rstrip("=")
        with pytest.raises(MrcError, match="cursor is none"):
            positions_of(raw, here, spans)


def test_stats_count_everything_once(world: World) -> None:
    site = list(world.sites.values())[-1]
    site.cluster.write(site.topics.topic, 0, None, b"{}", [])
    for _ in range(5):
        world.clock.sleep(1)
        site.tick()
    found = audit_of(world, site).stats(None)
    every = {one["id"]: one for some in site.conflicts().values() for one in some}
    assert sum(one.count for one in found.conflicts) == len(every)
    assert {(one.what, one.count) for one in found.dead_letters} == {("no-key", 1)}
    per_rule = Counter(one["rule"] for one in every.values())
    assert Counter({rule: sum(one.count for one in found.conflicts if one.what == rule) for rule in per_rule}) == per_rule
    assert {one.outcome for one in found.conflicts} <= {*world.regions, "open"}
    assert audit_of(world, site).stats(10**13).conflicts == ()


@pytest.mark.parametrize("stride", [500, 1])
def test_a_conflict_that_was_decided_again_is_one_and_its_last_decision_counts(monkeypatch: pytest.MonkeyPatch, stride: int) -> None:
    monkeypatch.setattr(audit, "STRIDE_RECORDS", stride)
    world = lived(MANY)
    site = next(iter(world.sites.values()))
    record = site.cluster.read(site.topics.conflicts, 0)[0]
    asked = audit_of(world, site)
    before, counted = asked.newest(Filter(), 1_000), asked.stats(None)
    for rule in ("first-again", "then-again"):
        again = json.loads(record.value or b"") | {"rule": rule}
        site.cluster.write(record.topic, 0, record.key, json.dumps(again).encode(), record.headers)
        asked_for = json.dumps({"id": "one", "template": rule}).encode()
        site.cluster.write(site.topics.compensations, 0, record.key, asked_for, record.headers)
    after = asked.newest(Filter(), 1_000)
    assert [one.id for one in after] == [one.id for one in before]
    assert [one.rule for one in after if one.id == again["id"]] == ["then-again"]
    for gone in ("first-again", json.loads(record.value or b"")["rule"]):
        assert again["id"] not in ids(asked.newest(Filter(rule=gone), 1_000))
    assert len(asked.newest(Filter(entity=again["key"]), 2)) == min(2, sum(one.key == again["key"] for one in before))
    found = asked.find(again["id"])
    assert found is not None
    assert found.rule == "then-again"
    stats = asked.stats(None)
    assert sum(one.count for one in stats.conflicts) == sum(one.count for one in counted.conflicts)
    assert [one.count for one in stats.conflicts if one.what in ("first-again", "then-again")] == [1]
    assert [(one.what, one.count) for one in stats.compensations] == [("then-again", 1)]


def test_a_record_that_is_no_conflict_is_named_and_left_out(world: World) -> None:
    site = next(iter(world.sites.values()))
    before = audit_of(world, site).newest(Filter(), 1_000)
    one = json.loads(site.records(site.topics.conflicts)[0].value or b"")
    site.cluster.write(site.topics.conflicts, 0, b"x", b"not json", [])
    site.cluster.write(site.topics.conflicts, 0, b"x", json.dumps({**one, "winner": "nobody"}).encode(), [])
    site.cluster.write(site.topics.conflicts, 0, b"x", b'{"id": "\xff"}', [])
    for hlc in ("\u00b2.0", "9" * 20 + ".0", "1"):
        sides = [{**side, "hlc": hlc} for side in one["candidates"]]
        site.cluster.write(site.topics.conflicts, 0, b"x", json.dumps({**one, "candidates": sides}).encode(), [])
    for beyond in ({"number": 2**63}, {"unseen_since": -(2**63) - 1}, {"seen": {"west": 10**30}}):  # more than any message holds
        sides = [{**side, **beyond} for side in one["candidates"]]
        site.cluster.write(site.topics.conflicts, 0, b"x", json.dumps({**one, "candidates": sides}).encode(), [])
    site.cluster.write(site.topics.conflicts, 0, b"x", json.dumps({**one, "until_ms": 2**63}).encode(), [])
    decision = {"id": "d", "region": "west", "actor": "ann", "reason": "", "at_ms": 2**63}
    site.cluster.write(site.topics.conflicts, 0, b"x", json.dumps({**one, "decision": decision}).encode(), [])
    warnings: list[str] = []
    assert audit_of(world, site, warnings).newest(Filter(), 1_000) == before
    assert len(warnings) == 11
    assert all(site.topics.conflicts in words and Region(site.region) in words for words in warnings)

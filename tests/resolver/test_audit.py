"""Conflicts as operators ask for them, against all that a region has written."""

from __future__ import annotations

import itertools
import json
from collections import Counter

import pytest

from mrc.core.model import Region
from mrc.resolver import audit
from mrc.resolver.audit import Audit, Filter
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
    record = site.cluster.read(site.topics.conflicts, 0)[0]
    coming = audit_of(world, site).follow(Filter())
    assert next(coming) == []
    site.cluster.write(record.topic, 0, record.key, record.value, record.headers)
    assert [one.id for one in next(coming)] == [(record.key or b"").decode()]
    assert next(coming) == []
    whole = next(audit_of(world, site).follow(Filter(since_ms=0)))
    assert len(whole) == len(site.records(site.topics.conflicts))


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
    warnings: list[str] = []
    assert audit_of(world, site, warnings).newest(Filter(), 1_000) == before
    assert len(warnings) == 6
    assert all(site.topics.conflicts in words and Region(site.region) in words for words in warnings)

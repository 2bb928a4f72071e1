"""History resolved again by other rules: what would change is what the oracle says, and what cannot be judged is not."""

from __future__ import annotations

import functools
import json
import random
from typing import Any

import msgspec
import pytest

from mrc.core.errors import MrcError
from mrc.core.model import Offset, TopicPartition
from mrc.resolver.kinds import Kind
from mrc.resolver.replaying import DryRun, dry_run
from mrc.resolver.writing import FINAL
from mrc.sim.streams import FakeLogs, FakeShelves
from tests.core.conflict import oracle
from tests.core.conflict.histories import RULES, Made
from tests.resolver import test_convergence
from tests.resolver.unstamped import Unstamped
from tests.resolver.world import Site, World, kind_of

SEEDS = range(4, 12)

KINDS: dict[str, type[World]] = {"stamped": World, "unstamped": Unstamped}


@functools.cache
def lived(seed: int, kind: str = "stamped") -> World:
    """A world that is only read here."""
    return test_convergence.lived(seed, KINDS[kind])


def others(world: World, seed: int) -> tuple[Kind, list[dict[str, Any]]]:
    """The world's kind of entity with other rules."""
    rules = random.Random(seed).choice([one for one in RULES if one != next(iter(world.made.values())).rules])
    return kind_of(Made(seed, world.regions, rules), detection=world.detection), rules


def replayed(world: World, site: Site, other: Kind, since_ms: int | None = None) -> DryRun:
    return dry_run(FakeLogs(site.cluster), FakeShelves(site.cluster), [(world.kind, other)], site.region, since_ms, {})


def histories(world: World, rules: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """What stands after each event of each order, by brute force and these rules."""
    return {key: oracle.history(f"order/{key}", world.judged(key), rules, world.regions) for key in world.made}


def winners(history: dict[str, list[dict[str, Any]]]) -> dict[str, str]:
    return {one["conflict"]: one["winner"] for steps in history.values() for one in steps if one["conflict"]}


def ends(history: dict[str, list[dict[str, Any]]]) -> dict[str, tuple[str, dict[str, Any]]]:
    return {key: (steps[-1]["winner"], steps[-1]["fields"]) for key, steps in history.items() if steps}


def told(found: DryRun) -> tuple[dict[str, str | None], dict[str, tuple[str, dict[str, Any]]]]:
    """The changes that it is certain of: conflicts with their new winners, entities with what would stand."""
    decided = {one.conflict: one.would.winner if one.would else None for one in found.decisions if not (same_winner(one) or one.assumed)}
    stands = {one.key: (one.would.event, json.loads(one.would.fields)) for one in found.changes if one.would and not one.assumed}
    return decided, stands


def same_winner(one: Any) -> bool:
    return bool(one.was and one.would and one.was.winner == one.would.winner)


@pytest.mark.parametrize("kind", KINDS)
def test_the_rules_of_now_change_nothing_and_everything_is_judged(kind: str) -> None:
    judged_conflicts = 0
    for seed in SEEDS:
        world = lived(seed, kind)
        for site in world.sites.values():
            before = [site.records(name) for name in (*site.topics.inputs, *site.topics.made)]
            found = replayed(world, site, world.kind)
            assert (found.unjudged_conflicts, found.unjudged_entities, found.assumed, found.pending) == (0, 0, 0, 0), seed
            assert not found.changed, seed
            assert found.conflicts == len({one["id"] for some in site.conflicts().values() for one in some}), seed
            assert found.entities == len(site.resolved()), seed
            assert [site.records(name) for name in (*site.topics.inputs, *site.topics.made)] == before
            judged_conflicts += found.conflicts
    assert judged_conflicts > 50


def test_an_entity_of_which_nothing_final_is_left_is_counted_as_not_judged() -> None:
    world = test_convergence.lived(4)
    site = next(iter(world.sites.values()))
    for final in (b"false", b"false", b"true"):
        site.cluster.write(site.topics.resolved, 0, b"compacted", b"{}", [(FINAL, final)])
        assert replayed(world, site, world.kind).unjudged_entities == 1
    for key in ("compacted", "under way"):
        site.cluster.write(site.topics.resolved, 0, key.encode(), b"{}", [(FINAL, b"false")])
    assert replayed(world, site, world.kind).unjudged_entities == 2


@pytest.mark.parametrize("kind", KINDS)
def test_what_other_rules_would_change_is_what_the_oracle_says(kind: str) -> None:
    changed = 0
    for seed in SEEDS:
        world = lived(seed, kind)
        other, rules = others(world, seed)
        now, then = histories(world, next(iter(world.made.values())).rules), histories(world, rules)
        wanted = {id: then_wins for id, then_wins in winners(then).items() if winners(now)[id] != then_wins}
        stands = {key: end for key, end in ends(then).items() if ends(now)[key] != end}
        for site in world.sites.values():
            found = replayed(world, site, other)
            assert told(found) == (wanted, stands), seed
            assert (found.winners, found.standings) == (len(wanted), len(stands)), seed
        changed += len(wanted)
    assert changed > 20


@pytest.mark.parametrize("kind", KINDS)
def test_of_a_window_nothing_is_said_that_the_whole_history_would_not_say(kind: str) -> None:
    judged_there = assumed = unjudged = 0
    for seed in range(4, 20):
        world = lived(seed, kind)
        other, rules = others(world, seed)
        wanted = {**winners(histories(world, rules))}
        stands = ends(histories(world, rules))
        for site in world.sites.values():
            stamps = sorted(record.timestamp_ms for record in site.records(site.topics.topic))
            if not stamps:
                continue
            found = replayed(world, site, other, stamps[len(stamps) // 3])
            decided, changes = told(found)
            assert {id: wanted[id] for id in decided} == decided, seed
            # Sums and fields of before the window are unknown, and so is what stands by them: such entities must not be judged.
            assert {key: stands[key] for key in changes} == changes, seed
            judged_there += found.conflicts - found.assumed
            assumed += found.assumed
            unjudged += found.unjudged_entities + found.unjudged_conflicts
    assert judged_there > 10
    assert assumed > 10
    assert unjudged > 10


def test_compensations_that_would_be_asked_for_are_counted() -> None:
    world = lived(3)
    asking = kind_of(next(iter(world.made.values())), on_loss="recall")
    found = {region: replayed(world, site, asking) for region, site in world.sites.items()}
    lost = sum(len(one["candidates"]) - 1 for some in next(iter(world.sites.values())).conflicts().values() for one in some)
    assert lost > 0
    assert sum(one.compensations_would.get("recall", 0) for one in found.values()) == lost
    assert all(one.compensations == {} and one.changed for one in found.values())


def test_an_offset_begins_a_partition_and_one_that_is_not_there_is_refused() -> None:
    world = lived(4)
    site = next(iter(world.sites.values()))
    shelves, logs = FakeShelves(site.cluster), FakeLogs(site.cluster)
    kinds = [(world.kind, world.kind)]
    whole = dry_run(logs, shelves, kinds, site.region, None, {})
    spans = logs.spans([site.topics.topic])
    tp = max(spans, key=lambda one: spans[one].end)
    assert dry_run(logs, shelves, kinds, site.region, None, {tp: spans[tp].end}).events == whole.events - len(
        [record for record in site.records(tp.topic) if record.partition == tp.partition]
    )
    for wrong, code in (((TopicPartition("nowhere", 0), Offset(0)), "UNKNOWN_TOPIC"), ((tp, Offset(10_000)), "OFFSET_OUT_OF_RANGE")):
        with pytest.raises(MrcError) as caught:
            dry_run(logs, shelves, kinds, site.region, None, dict([wrong]))
        assert caught.value.code == code


def test_another_detection_is_refused() -> None:
    world = lived(5)
    site = next(iter(world.sites.values()))
    other = kind_of(next(iter(world.made.values())), detection="watermark")
    with pytest.raises(MrcError, match="the events' numbers and ids would be others"):
        replayed(world, site, other)


def test_another_name_for_the_kind_of_entity_is_refused() -> None:
    world = lived(5)
    site = next(iter(world.sites.values()))
    with pytest.raises(MrcError, match="the ids of all conflicts would be others"):
        replayed(world, site, msgspec.structs.replace(world.kind, name="parcel"))

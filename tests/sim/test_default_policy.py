"""Moves of groups under the default policy: both flows always on, groups read what is written where they are and the other's copies."""

from __future__ import annotations

import pytest

from mrc.core.failover.execution import AbortAsked
from mrc.core.failover.ledger import Ledger
from mrc.core.model import Region
from mrc.sim.agents import contents
from mrc.sim.world import EAST, WEST, connector
from tests.sim.estate import Estate


def settled(*, exactly_once: bool = False) -> Estate:
    estate = Estate(policy="default", exactly_once=exactly_once)
    estate.settle()
    return estate


def lose(estate: Estate, region: Region) -> None:
    estate.world.lose(region)
    for name in (f"{region}-a", f"{region}-b"):
        estate.stop(name)


def regain(estate: Estate, region: Region) -> None:
    estate.world.regain(region)
    estate.restart(region)


def ledger(estate: Estate, region: Region) -> Ledger:
    ((found, _),) = estate.leader(region).coordinator.estate.store.ledgers()
    return found


@pytest.mark.parametrize("exactly_once", [False, True])
def test_moves_there_and_back_and_there_lose_skip_and_repeat_nothing(exactly_once: bool) -> None:
    estate = settled(exactly_once=exactly_once)
    for target in (WEST, EAST, WEST):
        run = estate.move("switchover", target)
        assert run.phase == "succeeded", run.waiting
        estate.settle()
    estate.drain()
    assert estate.wrong() == []
    written = {region: sum(where == region for where in estate.applications.acked.values()) for region in (EAST, WEST)}
    assert min(written.values()) > 100
    for flow in estate.world.flows:
        assert estate.world.replicators[flow.target].status(connector(flow)).state == "RUNNING"


def acts_of_a_switchover() -> list[str]:
    """Those of a move that finds records of both regions in both regions."""
    estate = there_and_back()
    switch = estate.leader(WEST).switch
    switch.armed = True
    estate.move("switchover", WEST)
    return switch.acts


def there_and_back() -> Estate:
    estate = settled()
    for target in (WEST, EAST):
        assert estate.move("switchover", target).phase == "succeeded"
        estate.settle()
    return estate


ACTS = acts_of_a_switchover()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(1, len(ACTS)), ids=[f"{n}-{name}" for n, name in enumerate(ACTS)][1:])
def test_the_mover_may_be_killed_at_any_act(at: int, after: bool) -> None:
    estate = there_and_back()
    switch = estate.leader(WEST).switch
    switch.at, switch.after, switch.armed = at, after, True
    estate.begin("switchover", WEST)
    assert estate.finish(WEST).phase == "succeeded"
    estate.settle()
    estate.drain()
    assert estate.wrong() == []
    assert estate.end_state()["record"] == (WEST, "open", 4)
    assert estate.end_state()["connectors"] == there_and_back().end_state()["connectors"]


def test_what_a_failover_leaves_behind_comes_late_and_nobody_skips_it() -> None:
    estate = settled()
    for target in (WEST, EAST):
        assert estate.move("switchover", target).phase == "succeeded"
        estate.settle()
    estate.replicating = False
    estate.settle(3)
    lose(estate, EAST)
    assert estate.move("failover", WEST, attested=True).phase == "succeeded"
    assert ledger(estate, WEST).state == "open"
    estate.replicating = True
    estate.settle()

    estate.world.clusters[EAST].reachable = True
    behind = {
        tp: len(contents(estate.world, EAST, tp)) - len(contents(estate.world, WEST, estate.world.mirror(EAST, tp)))
        for tp in estate.world.tps()
    }
    assert sum(behind.values()) > 0
    estate.world.clusters[EAST].reachable = False
    estate.replicating = False  # the flow comes back later than the region
    regain(estate, EAST)
    estate.settle(30)
    listed = ledger(estate, EAST)
    assert listed.state == "late"
    assert {(t.topic, t.partition): t.records for t in listed.tails} == {(tp.topic, tp.partition): n for tp, n in behind.items()}
    estate.replicating = True
    estate.settle(30)
    assert ledger(estate, EAST) == type(listed)(**{**{f: getattr(listed, f) for f in listed.__struct_fields__}, "state": "copied"})

    assert estate.move("switchover", EAST).phase == "succeeded"
    estate.settle()
    estate.drain()
    # What a group had processed beyond the copies it processes again when they come, late: nothing else is wrong.
    assert [one for one in estate.wrong() if " twice" not in one or "processed" not in one] == []
    assert estate.world.clusters[EAST].acls.allows("User:producer", "write", "topic", "orders")
    assert not estate.world.clusters[WEST].acls.allows("User:producer", "write", "topic", "orders")


def acts_of_a_failover() -> list[str]:
    estate = before_a_failover()
    switch = estate.leader(WEST).switch
    switch.armed = True
    estate.move("failover", WEST, attested=True)
    return switch.acts


def before_a_failover() -> Estate:
    estate = there_and_back()
    estate.replicating = False
    estate.settle(2)
    lose(estate, EAST)
    return estate


FAILOVER = acts_of_a_failover()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(1, len(FAILOVER)), ids=[f"{n}-{name}" for n, name in enumerate(FAILOVER)][1:])
def test_a_failover_may_be_killed_at_any_act(at: int, after: bool) -> None:
    estate = before_a_failover()
    switch = estate.leader(WEST).switch
    switch.at, switch.after, switch.armed = at, after, True
    estate.begin("failover", WEST, attested=True)
    assert estate.finish(WEST).phase == "succeeded"
    estate.replicating = True
    regain(estate, EAST)
    estate.settle(40)
    assert ledger(estate, EAST).state == "copied"
    estate.drain()
    assert [one for one in estate.wrong() if "processed" not in one] == []


def test_an_abort_changes_nothing_but_the_epoch() -> None:
    estate = settled()
    estate.replicating = False  # it will never drain
    estate.begin("switchover", WEST)
    for _ in range(20):
        estate.round()
    estate.leader(WEST).coordinator.mover.ask(AbortAsked("test"))
    assert estate.finish(WEST).phase == "aborted"
    estate.replicating = True
    estate.settle()
    estate.drain()
    assert estate.wrong() == []

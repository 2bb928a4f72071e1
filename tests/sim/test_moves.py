"""The production mover over the in-memory world: moves there and back, and kills at every act."""

from __future__ import annotations

import pytest

from mrc.core.failover.execution import AbortAsked
from mrc.sim.agents import contents
from mrc.sim.kills import Killed
from mrc.sim.world import EAST, WEST
from tests.sim.estate import Estate


def switched(*, exactly_once: bool = False) -> Estate:
    estate = Estate(exactly_once=exactly_once)
    estate.settle()
    run = estate.move("switchover", WEST)
    assert run.phase == "succeeded", run.waiting
    return estate


@pytest.mark.parametrize("exactly_once", [False, True])
def test_a_switchover_and_the_way_home_lose_skip_and_repeat_nothing(exactly_once: bool) -> None:
    estate = switched(exactly_once=exactly_once)
    estate.settle()
    run = estate.move("switchover", EAST)
    assert run.phase == "succeeded"
    estate.settle()
    estate.drain()
    assert estate.wrong() == []


def test_the_standby_is_fenced_at_rest_and_the_old_region_after_the_move() -> None:
    estate = Estate()
    estate.settle()
    assert not estate.world.clusters[WEST].acls.allows("User:producer", "write", "topic", "orders")
    assert not estate.world.clusters[WEST].acls.allows("User:consumer", "read", "group", "billing")
    estate.move("switchover", WEST)
    assert not estate.world.clusters[EAST].acls.allows("User:producer", "write", "topic", "orders")
    assert estate.world.clusters[WEST].acls.allows("User:producer", "write", "topic", "orders")


def acts_of_a_switchover() -> list[str]:
    estate = Estate()
    estate.settle()
    switch = estate.leader(WEST).switch
    switch.armed = True
    estate.move("switchover", WEST)
    return switch.acts


ACTS = acts_of_a_switchover()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(len(ACTS)), ids=[f"{n}-{name}" for n, name in enumerate(ACTS)])
def test_the_mover_may_be_killed_at_any_act(at: int, after: bool) -> None:
    estate = Estate()
    estate.settle()
    leader = estate.leader(WEST)
    leader.switch.die_at(at, after=after)
    estate.begin("switchover", WEST) if at else begin_or_be_killed(estate)
    run = estate.finish(WEST) if not never_began(estate) else None
    if run is None:
        return
    assert run.phase == "succeeded"
    estate.settle()
    estate.drain()
    assert estate.wrong() == []
    assert estate.end_state() == UNDISTURBED


def begin_or_be_killed(estate: Estate) -> None:
    """The first act is the writing of the plan itself."""
    leader = estate.leader(WEST)
    try:
        estate.begin("switchover", WEST)
    except Killed:
        leader.alive = False
        leader.tree.expire()


def never_began(estate: Estate) -> bool:
    """Killed before the plan was written: then nothing has happened, and nothing will."""
    return not estate.world.ensemble.nodes["/groups/orders/current"].data and estate.applications.record().epoch == 1


def test_a_failover_loses_exactly_the_tail_and_the_region_comes_home() -> None:
    estate = Estate()
    estate.settle()
    estate.replicating = False
    estate.round()
    estate.lose(EAST)
    run = estate.move("failover", WEST, attested=True)
    assert run.phase == "succeeded"
    estate.replicating = True
    estate.settle()

    # What east alone holds, by the logs themselves.
    estate.world.clusters[EAST].reachable = True
    only_east = {
        tp: [value for value in contents(estate.world, EAST, tp) if value not in set(contents(estate.world, WEST, tp))]
        for tp in estate.world.tps()
    }
    assert sum(map(len, only_east.values())) > 0
    estate.regain(EAST)
    estate.settle(30)
    (ledger, _), *rest = estate.leader(EAST).coordinator.estate.store.ledgers()
    assert rest == []
    assert ledger.state == "listed"
    assert {(t.topic, t.partition): t.records for t in ledger.tails} == {(tp.topic, tp.partition): len(v) for tp, v in only_east.items()}

    home = estate.move("switchover", EAST)
    assert home.phase == "succeeded", home.waiting
    estate.settle()
    estate.drain()
    lost = {value for values in only_east.values() for value in values}
    processed = estate.applications.processed
    for tp in estate.world.tps():
        west = contents(estate.world, WEST, tp)
        assert [value for value in contents(estate.world, EAST, tp) if value not in lost] == west
        for group in estate.world.groups:
            assert set(west) <= set(processed[group]), "skipped"


def test_an_abort_before_the_point_of_no_return_opens_the_source_again() -> None:
    estate = Estate()
    estate.settle()
    estate.replicating = False  # it will never drain
    estate.begin("switchover", WEST)
    for _ in range(20):
        estate.round()
    mover = estate.leader(WEST).coordinator.mover
    mover.ask(AbortAsked("test"))
    run = estate.finish(WEST)
    assert run.phase == "aborted"
    estate.replicating = True
    estate.settle()
    assert (estate.applications.record().region, estate.applications.record().epoch) == (EAST, 2)
    assert estate.move("switchover", WEST).phase == "succeeded"
    estate.settle()
    estate.drain()
    assert estate.wrong() == []


def test_a_second_abort_takes_nothing_away_from_the_first() -> None:
    estate = Estate()
    estate.settle()
    estate.replicating = False  # it will never drain
    estate.begin("switchover", WEST)
    for _ in range(20):
        estate.round()
    mover = estate.leader(WEST).coordinator.mover
    for _ in range(3):
        mover.ask(AbortAsked("impatient"))
    assert estate.finish(WEST).phase == "aborted"


def test_a_move_whose_beginning_was_never_answered_goes_on_all_the_same() -> None:
    estate = Estate()
    estate.settle()
    mover = estate.leader(WEST).coordinator.mover
    estate.begin("switchover", WEST)
    mover.drop()  # as if the answer of ZooKeeper had been lost
    assert estate.finish(WEST).phase == "succeeded"


def test_the_write_block_does_not_begin_while_the_capture_has_much_to_read() -> None:
    estate = Estate()
    estate.settle()
    estate.producing = False
    estate.applications.produce(60_000)
    estate.world.replicate()
    estate.world.clock.sleep(1.0)
    estate.agents[estate.leader(WEST).name].pump(move=False)
    coordinator = estate.leader(WEST).coordinator
    assert "offsets of both logs to read" in coordinator.capture.behind()
    estate.begin("switchover", WEST)
    for _ in range(400):
        estate.round()
        if estate.applications.record().state != "open":
            break
        run = estate.run_of(WEST)
        assert run is not None
        assert run.step.name in ("preflight", "fence-source")
    assert coordinator.capture.behind() == ""
    assert estate.finish(WEST).phase == "succeeded"


def undisturbed() -> dict[str, object]:
    estate = switched()
    estate.settle()
    return estate.end_state()


UNDISTURBED = undisturbed()

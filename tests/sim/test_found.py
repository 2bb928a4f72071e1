"""What the simulation has found, each as the shortest story that shows it. The seeds themselves are in `seeds.txt`."""

from __future__ import annotations

import pytest

from mrc.config.runbook import load_runbook
from mrc.core.errors import MrcError
from mrc.core.failover.execution import AbortAsked, Do
from mrc.core.failover.plan import make_plan
from mrc.sim.world import EAST, WEST
from tests.sim.estate import RUNBOOKS, Estate, settled


def test_a_move_whose_beginning_and_whose_taking_up_were_both_never_answered_goes_on_all_the_same() -> None:
    estate = settled()
    leader = estate.leader(WEST)
    estate.begin("switchover", WEST)
    leader.coordinator.mover.drop()  # as if the answer of ZooKeeper had been lost
    leader.tree.replies_to_lose = 1
    assert estate.finish(WEST).phase == "succeeded"


def test_an_abort_from_the_source_whose_answer_is_lost_leaves_nothing_half_taken_up() -> None:
    estate = settled()
    estate.replicating = False
    estate.begin("switchover", WEST)
    estate.settle(5)
    plan = estate.leader(WEST).coordinator.mover.run
    assert plan is not None
    for name in ("west-a", "west-b"):
        estate.agents[name].alive = False
        estate.agents[name].tree.expire()
    east = estate.leader(EAST)
    east.tree.replies_to_lose = 1
    with pytest.raises(MrcError):
        east.coordinator.mover.adopt(plan.plan, AbortAsked("test"))
    assert east.coordinator.mover.idle, "it can be asked again"


def test_a_region_that_is_failed_back_to_before_its_own_tail_was_listed_tells_it_from_the_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    estate = Estate()
    estate.settle(30)
    estate.replicating = False
    estate.round()
    estate.lose(EAST)
    assert estate.move("failover", WEST, attested=True).phase == "succeeded"
    estate.regain(EAST)
    for name in ("east-a", "east-b"):
        monkeypatch.setattr(estate.agents[name].coordinator, "flow_tick", lambda: "")  # had no turn yet
    estate.settle(5)
    estate.lose(WEST)
    assert estate.move("failover", EAST, attested=True).phase == "succeeded"
    monkeypatch.undo()
    estate.regain(WEST)
    estate.replicating = True
    estate.settle(40)
    states = {ledger.region: ledger.state for ledger, _ in estate.leader(EAST).coordinator.estate.store.ledgers()}
    assert states == {EAST: "listed", WEST: "listed"}


def test_an_effect_whose_execution_is_superseded_before_it_is_tried_again_is_not_carried_out() -> None:
    estate = settled()
    estate.replicating = False
    estate.begin("switchover", WEST)
    before = estate.until_step("drain")
    leader = estate.leader(WEST)
    mover = leader.coordinator.mover
    mover._effects.clear()
    mover._effects.append(Do(before.step, before.attempt + 1))  # a further try, before which it waits
    book, digest = load_runbook(RUNBOOKS / "failover.yaml")
    plan = make_plan(
        book,
        digest,
        execution="9",
        replication_group="orders",
        source=EAST,
        target=WEST,
        epoch=before.plan.epoch,
        now_ms=estate.world.clock.now_ms(),
        token="",
        attested=True,
        actor="test",
        reason="",
        supersedes=before.plan.id,
    )
    waited: list[str] = []

    def meanwhile() -> None:
        if not waited:
            waited.append("once")
            mover.supersede(before.plan.id, plan)

    estate.world.clock.meanwhile = meanwhile
    assert mover.step()
    assert waited
    assert mover.run is not None
    assert mover.run.plan.id == "9"
    assert (mover.run.phase, mover.run.step.name) == ("doing", "preflight"), "it goes on with what has taken its place"
    assert mover.step()

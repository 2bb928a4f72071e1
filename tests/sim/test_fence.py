"""A fence in the production mover: it holds until a person lets the region open again, whatever dies meanwhile, and opens nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mrc.core.errors import MrcError
from mrc.core.failover.execution import ENDED, AbortAsked, Approved, Run, replay
from mrc.core.model import Region, TopicPartition
from mrc.sim.kills import Killed
from mrc.sim.world import EAST, PRODUCER, WEST
from tests.sim.estate import Estate, settled
from tests.sim.test_service import objectives, service

ORDERS = TopicPartition("orders", 0)
ENDINGS: dict[str, Callable[[], Approved | AbortAsked]] = {"approve": lambda: Approved("test"), "abort": lambda: AbortAsked("test")}
PHASES = {"approve": "succeeded", "abort": "aborted"}


def fenced(estate: Estate) -> Run:
    """Fence east and return the execution, which waits."""
    estate.begin("fence", WEST)
    run = estate.until("waiting", *ENDED)
    assert run.waiting is not None
    assert (run.waiting.step, run.waiting.code) == ("reopen-source", "")
    return run


def record(estate: Estate) -> tuple[Region, str, int]:
    one = estate.applications.record()
    return one.region, one.state, one.epoch


def refused(estate: Estate, region: Region) -> bool:
    """Whether a producer that knows nothing of the record is refused."""
    return not estate.world.clusters[region].acls.allows(PRODUCER, "write", "topic", "orders")


# ---------------------------------------------------------------- in force


def test_a_fence_stays_until_a_person_ends_it_though_agents_die_and_somebody_takes_refusals_away() -> None:
    estate = settled()
    before = len(estate.applications.acked)
    run = fenced(estate)
    assert "7 refuse, 0 accept" in run.evidence["fence-source"]
    acked, ends = len(estate.applications.acked), estate.world.clusters[EAST].ends(estate.world.tps(), "read_uncommitted")
    assert acked > before
    for region in (EAST, WEST):
        estate.stop(estate.leader(region).name)
        estate.settle(40)
    acls = estate.world.clusters[EAST].acls
    acls.bindings = {one for one in acls.bindings if one.permission == "allow"}
    estate.settle(200)
    assert record(estate) == (EAST, "draining", 1)
    assert (refused(estate, EAST), refused(estate, WEST)) == (True, True)
    assert estate.world.clusters[EAST].ends(estate.world.tps(), "read_uncommitted") == ends
    estate.leader(WEST).coordinator.mover.ask(Approved("somebody"))
    assert estate.until("succeeded", "waiting").phase == "succeeded"
    assert record(estate) == (EAST, "open", 2)
    assert (refused(estate, EAST), refused(estate, WEST)) == (False, True)
    estate.settle()
    assert len(estate.applications.acked) > acked
    assert estate.move("switchover", WEST).phase == "succeeded"
    estate.settle()
    estate.drain()
    assert estate.wrong() == []


def test_an_open_transaction_keeps_the_proof_waiting_and_writes_are_refused_meanwhile() -> None:
    estate = settled()
    east = estate.world.clusters[EAST]
    transaction = east.begin()
    east.produce(PRODUCER, ORDERS, b"late", b"late", transaction=transaction)
    estate.begin("fence", WEST)
    for _ in range(1_000):
        estate.round()
        run = estate.run_of(WEST)
        if run is not None and run.phase == "waiting":
            break
    assert run is not None
    assert run.waiting is not None
    assert (run.waiting.step, run.waiting.code) == ("fence-source", "OPEN_TRANSACTION")
    assert refused(estate, EAST)
    east.finish(transaction, commit=True)
    estate.leader(WEST).coordinator.mover.ask(Approved("test"))
    run = estate.until("waiting")
    assert run.waiting is not None
    assert (run.waiting.step, run.waiting.code) == ("reopen-source", "")
    assert record(estate) == (EAST, "draining", 1)


def test_neither_lag_nor_connect_nor_the_other_region_keeps_anybody_from_closing_one() -> None:
    estate = settled()
    estate.replicating = False
    estate.settle(10)
    estate.world.lose(WEST)
    estate.world.replicators[EAST].reachable = False
    estate.settle(5)
    answers = service(estate, WEST)
    assert [one.code for one in answers.plan("orders", "fence", WEST, attested=False, allow_data_loss=False).findings] == [
        "SUPER_USERS_UNKNOWN"
    ]
    answers.start("orders", "fence", WEST, "token", "somebody", "garbage", attested=False, allow_data_loss=False)
    run = estate.until("waiting")
    assert run.waiting is not None
    assert (run.waiting.step, run.waiting.code) == ("reopen-source", "")
    assert refused(estate, EAST)


def test_only_the_open_region_is_fenced_and_only_by_acls_that_hold() -> None:
    estate = settled()
    with pytest.raises(MrcError, match="east is the open region") as wrong:
        service(estate, EAST).start("orders", "fence", EAST, "token", "somebody", "", attested=False, allow_data_loss=False)
    assert wrong.value.code == "ALREADY_ACTIVE"
    estate.world.clusters[EAST].settings["super.users"] = PRODUCER
    estate.settle(5)
    with pytest.raises(MrcError, match="SUPER_USER") as unsafe:
        service(estate, WEST).start("orders", "fence", WEST, "token", "somebody", "", attested=False, allow_data_loss=False)
    assert unsafe.value.code == "PLAN_REFUSED"
    assert record(estate) == (EAST, "open", 1)


def test_a_region_that_the_others_cannot_see_is_closed_by_its_own_agents_and_the_proof_waits() -> None:
    estate = settled()
    estate.world.lose(EAST)
    estate.settle(5)
    answers = service(estate, WEST)
    found = answers.plan("orders", "fence", WEST, attested=False, allow_data_loss=False).findings
    assert [(one.code, one.severity) for one in found] == [("CLUSTER_UNREACHABLE", "warning")]
    answers.start("orders", "fence", WEST, "token", "somebody", "", attested=False, allow_data_loss=False)
    run = estate.until("waiting")
    assert run.waiting is not None
    assert (run.waiting.step, run.waiting.code) == ("fence-source", "CLUSTER_UNREACHABLE")
    assert record(estate) == (EAST, "draining", 1)
    estate.world.regain(EAST)
    estate.leader(WEST).alive = False  # so that nobody but east's agents sets it
    estate.settle(5)
    assert refused(estate, EAST)


# ---------------------------------------------------------------- the way out


def acts(ending: str) -> list[str]:
    estate = settled()
    switch = estate.leader(WEST).switch
    switch.armed = True
    estate.begin("fence", WEST)
    assert estate.finish(WEST, ENDINGS[ending]()).phase == PHASES[ending]
    return switch.acts


def end_state(estate: Estate) -> dict[str, object]:
    estate.settle()
    return estate.end_state()


def undisturbed(ending: str) -> dict[str, object]:
    estate = settled()
    estate.begin("fence", WEST)
    estate.finish(WEST, ENDINGS[ending]())
    return end_state(estate)


UNDISTURBED = {ending: undisturbed(ending) for ending in ENDINGS}
KILLS = [(ending, at, name) for ending in ENDINGS for at, name in enumerate(acts(ending))]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("ending", "at"), [kill[:2] for kill in KILLS], ids=[f"{ending}-{at}-{name}" for ending, at, name in KILLS])
def test_the_agent_may_be_killed_at_any_act_of_a_fence(ending: str, at: int, after: bool) -> None:
    estate = settled()
    leader = estate.leader(WEST)
    leader.switch.die_at(at, after=after)
    try:
        estate.begin("fence", WEST)
    except Killed:
        estate.stop(leader.name)
        if not estate.world.ensemble.nodes["/groups/orders/current"].data:
            assert record(estate) == (EAST, "open", 1)  # nothing has happened, and nothing will
            return
    assert estate.finish(WEST, ENDINGS[ending]()).phase == PHASES[ending]
    assert not leader.alive
    assert end_state(estate) == UNDISTURBED[ending]
    assert record(estate) == (EAST, "open", 2)
    estate.drain()
    assert estate.wrong() == []


def test_a_fence_in_force_refuses_a_switchover_and_says_how_to_go_on() -> None:
    estate = settled()
    execution = fenced(estate).plan.id
    answers = service(estate, WEST)
    assert answers.status("orders").execution == execution
    for kind in ("switchover", "fence"):
        with pytest.raises(MrcError, match=f"a fence keeps east closed until .* `mrc approve {execution}`") as refusal:
            answers.start("orders", kind, WEST, f"token {kind}", "somebody", "", attested=False, allow_data_loss=False)
        assert refusal.value.code == "MOVE_IN_PROGRESS"
    assert record(estate) == (EAST, "draining", 1)


@pytest.mark.parametrize("dead", [False, True])
def test_a_failover_takes_the_place_of_a_fence(dead: bool) -> None:
    estate = settled()
    old = fenced(estate).plan.id
    if dead:
        estate.lose(EAST)
        estate.settle(10)
    answers = service(estate, WEST)
    with pytest.raises(MrcError) as refusal:
        answers.start("orders", "failover", WEST, "token", "somebody", "", attested=True, allow_data_loss=False)
    assert refusal.value.code == "MOVE_IN_PROGRESS"
    answers.start("orders", "failover", WEST, "another", "somebody", "", attested=True, allow_data_loss=True)
    assert estate.finish(WEST).phase == "succeeded"
    store = estate.leader(WEST).coordinator.estate.store
    assert replay(store.plan(old), store.entries(old)).phase == "superseded"
    assert record(estate) == (WEST, "open", 2)
    if dead:
        estate.regain(EAST)
    estate.settle(100)
    estate.drain()
    assert estate.wrong() == []


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_fence_whose_region_dies_under_it_ends_with_an_abort_or_when_it_is_back(ending: str) -> None:
    estate = settled()
    fenced(estate)
    estate.lose(EAST)
    estate.settle(10)
    estate.leader(WEST).coordinator.mover.ask(ENDINGS[ending]())
    run = estate.until("waiting", *ENDED)
    assert record(estate) == (EAST, "open", 2)
    if ending == "approve":
        assert run.waiting is not None
        assert run.waiting.code == "CLUSTER_UNREACHABLE"
        estate.regain(EAST)
        estate.settle()
        run = estate.finish(WEST, ENDINGS[ending]())
    assert run.phase == PHASES[ending]


def test_a_fence_whose_agents_have_all_died_is_aborted_from_the_region_that_it_closes() -> None:
    estate = settled()
    execution = fenced(estate).plan.id
    estate.lose(WEST)
    estate.settle(5)
    answers = service(estate, EAST)
    answers.abort(execution, "test", "west is dead")
    for _ in range(200):
        estate.round()
        if answers.execution(execution).status == "aborted":
            break
    assert answers.execution(execution).status == "aborted"
    assert record(estate) == (EAST, "open", 2)
    assert not refused(estate, EAST)


def test_how_long_a_fence_was_in_force_is_no_move_that_took_too_long() -> None:
    estate = settled()
    fenced(estate)
    estate.settle(100)
    assert estate.finish(WEST, ENDINGS["approve"]()).phase == "succeeded"
    estate.settle()
    assert objectives(estate, None, 1.0) == {}

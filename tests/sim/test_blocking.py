"""A failover to a region whose Connect does not answer: the flow is blocked, whatever dies meanwhile, and free again once it is STOPPED."""

from __future__ import annotations

import msgspec
import pytest

from mrc.core.errors import MrcError
from mrc.core.failover.execution import AbortAsked, Run
from mrc.core.inventory import Binding
from mrc.core.model import TopicPartition
from mrc.sim.kills import Killed
from mrc.sim.replicator import MM2
from mrc.sim.world import EAST, PRODUCER, WEST
from tests.sim.estate import Estate, settled
from tests.sim.test_service import service

ORDERS = TopicPartition("orders", 0)
FLOW = "mrc.orders.east-west"


def without_connect() -> Estate:
    """West's Connect has died, and east has what was not copied."""
    estate = settled()
    estate.world.replicators[WEST].reachable = False
    estate.settle(5)
    return estate


def refused(estate: Estate) -> set[bool]:
    """Whether MirrorMaker may write the topics in the target."""
    return {not estate.world.clusters[WEST].lets_write(MM2, tp) for tp in estate.world.tps()}


def left_behind(estate: Estate) -> None:
    """Give east's log a tail for the flow to copy."""
    estate.world.clusters[EAST].acls.bindings = {one for one in estate.world.clusters[EAST].acls.bindings if one.permission == "allow"}
    for number in range(3):
        estate.world.clusters[EAST].produce(PRODUCER, ORDERS, b"late", f"late {number}".encode())


def ledger_records(estate: Estate) -> int:
    ((ledger, _),) = estate.leader(EAST).coordinator.estate.store.ledgers()
    assert ledger.state == "listed"
    return sum(tail.records for tail in ledger.tails)


def home(estate: Estate) -> None:
    """West's Connect returns; see the estate at rest, and every promise kept."""
    estate.world.replicators[WEST].reachable = True
    estate.settle(40)
    assert refused(estate) == {False}
    assert not estate.leader(WEST).coordinator.estate.store.fence(WEST)[0].block
    assert estate.world.replicators[WEST].status(FLOW).state == "STOPPED"


# ---------------------------------------------------------------- in force


def test_the_plan_says_that_the_flow_will_be_blocked_and_status_that_it_is() -> None:
    estate = without_connect()
    answers = service(estate, WEST)
    found = {one.code: one for one in answers.plan("orders", "failover", WEST, attested=True, allow_data_loss=False).findings}
    assert found["FLOW_BLOCKED"].severity == "warning"
    assert MM2 in found["FLOW_BLOCKED"].message
    assert "CONNECT_UNREACHABLE" not in found
    switchover = answers.plan("orders", "switchover", WEST, attested=False, allow_data_loss=False).findings
    assert ("CONNECT_UNREACHABLE", "error") in {(one.code, one.severity) for one in switchover}
    run = estate.move("failover", WEST, attested=True)
    assert "its flow is blocked: User:mm2 may not write orders, payments there, and 7 logs stand still" in run.evidence["stop-flow"]
    shown = {one.code: one for one in answers.status("orders").findings}
    assert run.plan.id in shown["FLOW_BLOCKED"].message
    home(estate)
    assert "FLOW_BLOCKED" not in {one.code for one in answers.status("orders").findings}


def test_nothing_of_the_old_flow_comes_into_the_target_once_it_is_open() -> None:
    estate = without_connect()
    assert estate.move("failover", WEST, attested=True).phase == "succeeded"
    assert refused(estate) == {True}
    left_behind(estate)
    replicator = estate.world.replicators[WEST]
    replicator.reachable = True  # as when only the agents did not reach it, or it has just been started
    assert replicator.copy(FLOW) == 0
    assert "TopicAuthorizationException" in replicator.status(FLOW).trace
    home(estate)
    assert b"late 0" not in {entry.record.value for entry in estate.world.clusters[WEST].log(ORDERS).entries if entry.record}
    assert ledger_records(estate) >= 3


def test_the_block_is_set_again_where_somebody_takes_it_away_and_outlives_every_agent() -> None:
    estate = without_connect()
    assert estate.move("failover", WEST, attested=True).phase == "succeeded"
    acls = estate.world.clusters[WEST].acls
    acls.bindings = {one for one in acls.bindings if one.permission == "allow"}
    estate.settle(3)
    assert refused(estate) == {True}
    estate.restart(WEST)
    estate.settle(60)
    assert refused(estate) == {True}
    home(estate)


def test_the_block_stands_until_the_flow_is_stopped_and_has_no_tasks() -> None:
    estate = without_connect()
    assert estate.move("failover", WEST, attested=True).phase == "succeeded"
    replicator = estate.world.replicators[WEST]
    replicator.stop_takes_s = 3.0
    replicator.reachable = True
    seen = []
    for _ in range(60):
        estate.round()
        status = replicator.status(FLOW)
        seen.append((status.state, bool(status.tasks), True in refused(estate)))
    assert ("STOPPED", True, True) in seen
    assert not any(refuses for state, tasks, refuses in seen[-5:])
    assert all(refuses for state, tasks, refuses in seen if state != "STOPPED" or tasks)


def test_what_the_operator_had_refused_himself_stays_refused() -> None:
    estate = without_connect()
    theirs = Binding("topic", "orders", "literal", MM2, "write", "deny")
    estate.world.clusters[WEST].add_bindings([theirs])
    assert estate.move("failover", WEST, attested=True).phase == "succeeded"
    assert len(denied(estate)) == 2
    estate.world.replicators[WEST].reachable = True
    estate.settle(30)
    assert denied(estate) == {theirs}


def denied(estate: Estate) -> set[Binding]:
    """The refusals that name MirrorMaker in the target."""
    return {one for one in estate.world.clusters[WEST].acls.bindings if one.permission == "deny" and one.principal == MM2}


# ---------------------------------------------------------------- where it would hold nobody


@pytest.mark.parametrize("why", ["nobody is named", "super user", "another principal"])
def test_a_block_that_would_refuse_nobody_keeps_the_failover_from_being_begun(why: str) -> None:
    estate = without_connect()
    cluster = estate.world.clusters[WEST]
    if why == "super user":
        cluster.settings["super.users"] = f"User:admin;{MM2}"
    elif why == "another principal":
        cluster.acls.bindings = {one for one in cluster.acls.bindings if one.principal != MM2}
    else:
        for agent in estate.agents.values():
            reach = agent.coordinator.estate
            object.__setattr__(reach, "unit", msgspec.structs.replace(reach.unit, replicators=()))
    estate.settle(3)
    with pytest.raises(MrcError, match="nor can its flow be blocked") as raised:
        service(estate, WEST).start("orders", "failover", WEST, "token", "somebody", "", attested=True, allow_data_loss=False)
    assert raised.value.code == "CONNECT_UNREACHABLE"
    assert estate.applications.record().region == EAST


def test_connect_that_dies_after_the_plan_was_made_is_blocked_all_the_same() -> None:
    estate = settled()
    estate.begin("failover", WEST, attested=True)
    estate.until_step("close-source")
    estate.world.replicators[WEST].reachable = False
    run = estate.finish(WEST)
    assert run.phase == "succeeded"
    assert run.facts["blocked"] == MM2
    home(estate)


def test_a_broker_that_learns_of_the_block_late_lets_nothing_in_behind_the_opening() -> None:
    """What it lets in before that lies in front of the recorded ends, so that it is not copied back."""
    estate = settled()
    cluster, replicator = estate.world.clusters[WEST], estate.world.replicators[WEST]
    estate.replicating = False
    estate.settle(5)
    estate.world.replicators[WEST].reachable = False
    estate.settle(3)
    cluster.late_s = {0: 2.0, 1: 0.0}
    estate.begin("failover", WEST, attested=True)
    copied = 0
    for _ in range(200):
        estate.round()
        replicator.reachable = True  # its tasks live, only nobody reaches it
        copied += replicator.copy(FLOW, 1)
        replicator.connectors[FLOW].trace = ""
        replicator.reachable = False
        run = estate.run_of(WEST)
        if run is not None and run.phase == "succeeded":
            break
    assert run is not None
    assert run.phase == "succeeded"
    assert copied > 0, "nothing came past the block, so nothing was tried"
    estate.producing = False
    own = {value for value, region in estate.applications.acked.items() if region == WEST}
    for tp in estate.world.tps():
        values = [entry.record.value for entry in cluster.log(tp).entries if entry.record]
        first = next((index for index, value in enumerate(values) if value in own), len(values))
        assert set(values[first:]) <= own
    home(estate)
    estate.settle(60)
    values = [entry.record.value for tp in estate.world.tps() for entry in estate.world.clusters[EAST].log(tp).entries if entry.record]
    assert len(values) == len(set(values)), "what the flow had let in was copied back"


# ---------------------------------------------------------------- the way out, and kills


def test_an_aborted_failover_lets_the_flow_run_again_once_connect_is_back() -> None:
    estate = without_connect()
    estate.begin("failover", WEST, attested=True)
    estate.until_step("move-positions")
    estate.leader(WEST).coordinator.mover.ask(AbortAsked("test"))
    run = estate.until("aborted", "succeeded")
    assert run.phase == "aborted"
    assert estate.applications.record().region == EAST
    assert refused(estate) == {True}
    estate.world.replicators[WEST].reachable = True
    estate.settle(60)
    assert refused(estate) == {False}
    assert estate.world.replicators[WEST].status(FLOW).tasks == ("RUNNING",)
    estate.drain()
    assert estate.wrong() == []


def moved(estate: Estate) -> Run:
    return estate.finish(WEST)


def acts() -> list[str]:
    estate = without_connect()
    switch = estate.leader(WEST).switch
    switch.armed = True
    estate.begin("failover", WEST, attested=True)
    assert moved(estate).phase == "succeeded"
    estate.world.replicators[WEST].reachable = True
    estate.settle(30)
    return switch.acts


def end_state(estate: Estate) -> dict[str, object]:
    home(estate)
    return estate.end_state()


def undisturbed() -> dict[str, object]:
    estate = without_connect()
    assert estate.move("failover", WEST, attested=True).phase == "succeeded"
    return end_state(estate)


UNDISTURBED = undisturbed()
ACTS = acts()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(len(ACTS)), ids=[f"{n}-{name}" for n, name in enumerate(ACTS)])
def test_the_agent_may_be_killed_at_any_act_of_a_failover_that_blocks_the_flow(at: int, after: bool) -> None:
    estate = without_connect()
    leader = estate.leader(WEST)
    leader.switch.die_at(at, after=after)
    try:
        estate.begin("failover", WEST, attested=True)
    except Killed:
        estate.stop(leader.name)
        if not estate.world.ensemble.nodes["/groups/orders/current"].data:
            return  # nothing has happened, and nothing will
    assert moved(estate).phase == "succeeded"
    assert end_state(estate) == UNDISTURBED
    assert not leader.alive
    estate.drain()
    present = {value for tp in estate.world.tps() for value in values(estate, tp)}
    assert len(estate.applications.acked.keys() - present) <= ledger_records(estate)
    assert all(present <= set(processed) for processed in estate.applications.processed.values())


def values(estate: Estate, tp: TopicPartition) -> list[bytes]:
    return [entry.record.value for entry in estate.world.clusters[WEST].log(tp).entries if entry.record and entry.record.value]

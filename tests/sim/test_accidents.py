"""Accidents in the middle of moves: each ends, or says what it waits for, and nothing is lost unreported."""

from __future__ import annotations

from pathlib import Path

import pytest

from mrc.core.errors import MrcError
from mrc.core.failover.execution import AbortAsked, Run, Skipped, replay
from mrc.core.model import ActiveRecord, Epoch, Region, TopicPartition
from mrc.ports import Check
from mrc.sim.agents import contents
from mrc.sim.world import EAST, PRODUCER, WEST
from tests.sim.estate import BILLING, RUNBOOKS, SHIPPING, Estate, settled
from tests.sim.test_service import service


@pytest.mark.parametrize("step", ["drain", "stop-flow", "move-positions"])
def test_when_the_source_dies_in_a_switchover_it_is_ended_and_a_failover_goes_on(step: str) -> None:
    estate = settled()
    estate.replicating = step != "drain"
    estate.begin("switchover", WEST)
    estate.until_step(step)
    estate.lose(EAST)
    estate.settle(40)
    estate.leader(WEST).coordinator.mover.ask(AbortAsked("test"))
    for _ in range(200):
        estate.round()
        run = estate.run_of(WEST)
        if run is not None and run.phase == "aborted":
            break
    assert estate.run_of(WEST) is not None
    assert estate.move("failover", WEST, attested=True).phase == "succeeded"
    assert estate.applications.record().region == WEST


def test_a_reply_that_is_lost_at_an_election_costs_a_round_and_not_the_lead() -> None:
    estate = settled()
    first = estate.leader(WEST)
    second = next(agent for agent in estate.agents.values() if agent.name.startswith("west") and agent is not first)
    first.alive = False
    first.tree.expire()
    second.tree.replies_to_lose = 1
    estate.settle(30)
    assert second.leadership.leads


def test_a_former_leaders_new_session_renews_nothing_for_its_old_term() -> None:
    estate = settled()
    first = estate.leader(WEST)
    first.tree.expire()
    assert first.tree.get("/groups/orders/record") is not None  # an answer, by the new session
    assert first.tree.lease_s() > 0
    assert not first.leadership.leads
    with pytest.raises(MrcError) as raised:
        first.leadership.check()
    assert raised.value.code == "LEASE_LOST"


def test_a_failover_of_a_partition_that_nothing_is_known_of_begins_at_its_start() -> None:
    estate = Estate()
    estate.producing = False
    idle = TopicPartition("payments", 3)
    for n in range(20):
        for tp in estate.world.tps():
            if tp != idle:
                estate.world.clusters[EAST].produce(PRODUCER, tp, b"k", f"{tp}-{n}".encode())
    estate.settle(60)
    estate.lose(EAST)
    estate.restart(WEST)
    estate.settle(30)
    assert estate.move("failover", WEST, attested=True).phase == "succeeded"
    assert estate.world.clusters[WEST].positions(BILLING)[idle].offset == 0


def test_a_region_that_returns_with_its_topics_made_anew_is_not_taken_for_one_that_lost_nothing() -> None:
    estate = Estate()
    estate.consuming = {BILLING: 1_000, SHIPPING: 0}
    estate.settle(30)
    estate.lose(EAST)
    assert estate.move("failover", WEST, attested=True).phase == "succeeded"
    estate.settle(20)
    for topic, partitions in estate.world.partitions.items():
        estate.world.clusters[EAST].make_topic(topic, partitions)
    estate.regain(EAST)
    estate.settle(100)
    ((ledger, _),) = estate.leader(EAST).coordinator.estate.store.ledgers()
    assert ledger.state == "open"
    assert estate.world.replicators[EAST].status("mrc.orders.west-east").state == "STOPPED"


def test_a_refused_abort_from_the_source_takes_nothing_over() -> None:
    estate = settled()
    estate.begin("switchover", WEST)
    execution = estate.until_step("open-target").plan.id
    for name in ("west-a", "west-b"):
        estate.agents[name].alive = False
        estate.agents[name].tree.expire()
    estate.settle(5)
    before = estate.applications.record()
    with pytest.raises(MrcError) as raised:
        service(estate, EAST).abort(execution, "test", "")
    assert raised.value.code == "ABORT_REFUSED"
    estate.settle(20)
    assert estate.leader(EAST).coordinator.mover.idle
    assert estate.applications.record() == before


def test_an_aborted_failover_leaves_no_entry_in_the_ledger() -> None:
    estate = settled()
    estate.replicating = False
    estate.lose(EAST)
    estate.begin("failover", WEST, attested=True)
    estate.until_step("move-positions")
    mover = estate.leader(WEST).coordinator.mover
    mover.ask(AbortAsked("test"))
    estate.settle(40)
    run = estate.run_of(WEST)
    assert run is not None
    if run.phase == "aborted":
        assert estate.leader(WEST).coordinator.estate.store.ledgers() == []
    else:
        assert run.opened, "the abort came too late"


def test_while_the_maps_are_looked_for_anew_no_position_is_answered_from_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pump may be anywhere when the mover asks: here in the middle of asking a dead source."""
    estate = settled()
    estate.lose(EAST)
    estate.restart(WEST)
    estate.settle(30)
    capture = estate.leader(WEST).coordinator.capture
    wanted = capture.final_positions(source_alive=False, deadline_s=estate.world.clock.monotonic_s() + 1)
    assert all(wanted[group] for group in (BILLING, SHIPPING))
    east, topics = estate.world.clusters[EAST], estate.world.clusters[EAST].topics
    answers: list[object] = []

    def ask_meanwhile(names: tuple[str, ...]) -> object:
        try:
            answers.append(capture.final_positions(source_alive=False, deadline_s=estate.world.clock.monotonic_s()))
        except MrcError as error:
            answers.append(error.code)
        return topics(names)

    monkeypatch.setattr(east, "topics", ask_meanwhile)
    estate.settle(30)
    assert answers
    assert all(answer == wanted for answer in answers)


def test_positions_without_a_map_stand_on_what_was_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    estate = settled()
    estate.producing, estate.consuming = False, {}
    estate.settle(30)
    west = estate.world.clusters[WEST]
    before = estate.leader(WEST).coordinator.capture.standby_positions()
    estate.lose(EAST)
    estate.restart(WEST)
    del west.contents["mrc.offset-map.east.internal"]
    estate.settle(30)
    assert estate.move("failover", WEST, attested=True).phase == "succeeded"
    for group in (BILLING, SHIPPING):
        assert before[group]
        assert {tp: position.offset for tp, position in west.positions(group).items() if tp in before[group]} == {
            tp: position.offset for tp, position in before[group].items()
        }


def test_two_failovers_in_a_row_list_both_tails_where_a_partition_was_idle_between() -> None:
    estate = settled()
    estate.replicating = False
    estate.settle(10)  # what is written now is left behind in east
    estate.producing = False
    estate.lose(EAST)
    assert estate.move("failover", WEST, attested=True).phase == "succeeded"
    estate.replicating = True
    estate.regain(EAST)
    estate.settle(100)
    store = estate.leader(EAST).coordinator.estate.store
    ((first, _),) = store.ledgers()
    assert first.state == "listed"
    assert sum(tail.records for tail in first.tails) > 0
    estate.settle(30)
    estate.lose(WEST)
    assert estate.move("failover", EAST, attested=True).phase == "succeeded"
    estate.producing = True
    estate.regain(WEST)
    estate.settle(150)
    second = next(ledger for ledger, _ in store.ledgers() if ledger.id != first.id)
    assert second.state == "listed"
    assert {tail.records for tail in second.tails} == {0}
    assert estate.world.replicators[WEST].status("mrc.orders.east-west").state == "RUNNING"


def start(estate: Estate, target: Region, *, allow_data_loss: bool) -> str:
    """Ask the leader of the target for a failover, as the command does; return the execution's id."""
    answers = service(estate, target)
    view = answers.start("orders", "failover", target, f"token {target}", "somebody", "", attested=True, allow_data_loss=allow_data_loss)
    return view.id


@pytest.mark.parametrize("step", ["fence-source", "drain", "stop-flow", "close-source", "move-positions"])
def test_a_switchover_whose_source_dies_is_turned_into_a_failover(step: str) -> None:
    estate = settled()
    estate.replicating = step != "drain"
    estate.begin("switchover", WEST)
    run = estate.until_step(step)
    old = run.plan.id
    estate.lose(EAST)
    estate.settle(10)
    with pytest.raises(MrcError) as refused:
        start(estate, WEST, allow_data_loss=False)
    assert refused.value.code == "MOVE_IN_PROGRESS"
    new = start(estate, WEST, allow_data_loss=True)
    assert estate.finish(WEST).phase == "succeeded"
    store = estate.leader(WEST).coordinator.estate.store
    assert store.plan(new).supersedes == old
    assert replay(store.plan(old), store.entries(old)).phase == "superseded"
    assert (estate.applications.record().region, estate.applications.record().state) == (WEST, "open")
    estate.replicating = True
    estate.regain(EAST)
    estate.settle(150)
    ((ledger, _),) = store.ledgers()
    assert ledger.state == "listed"
    left = sum(tail.records for tail in ledger.tails)
    estate.drain()
    present = {value for tp in estate.world.tps() for value in contents(estate.world, WEST, tp)}
    assert len(estate.applications.acked.keys() - present) <= left
    assert all(present <= set(processed) for processed in estate.applications.processed.values())


@pytest.mark.parametrize("step", ["open-target", "route", "reverse-flow", "canary"])
def test_a_move_whose_target_dies_after_the_point_of_no_return_gives_way_to_a_failover_back(step: str) -> None:
    estate = settled()
    estate.begin("switchover", WEST)
    run = estate.until_step(step)
    estate.lose(WEST)
    estate.settle(80)
    new = start(estate, EAST, allow_data_loss=True)
    assert estate.finish(EAST).phase == "succeeded"
    store = estate.leader(EAST).coordinator.estate.store
    assert replay(store.plan(run.plan.id), store.entries(run.plan.id)).phase == "superseded"
    record = estate.applications.record()
    assert (record.region, record.state, record.execution) == (EAST, "open", new)


def test_an_execution_that_was_superseded_changes_nothing_more_when_its_agent_wakes() -> None:
    estate = settled()
    estate.begin("switchover", WEST)
    estate.until_step("open-target")
    sleeper = estate.leader(WEST)
    store, plan = sleeper.coordinator.estate.store, sleeper.coordinator.mover.run
    assert plan is not None
    found = store.record()
    assert found is not None
    estate.lose(WEST)
    estate.settle(80)
    start(estate, EAST, allow_data_loss=True)
    # The dead agent's store, with a session that has come back: what it was about to do.
    opened = ActiveRecord(WEST, "open", Epoch(found[0].epoch + 1), execution=plan.plan.id)
    now = store.record()
    assert now is not None
    with pytest.raises(MrcError) as refused:
        store.put_record(lambda: Check("/groups/orders/record", now[1]), opened, now[1])
    assert refused.value.code == "STALE_TERM"
    assert estate.finish(EAST).phase == "succeeded"


def waiting(estate: Estate, runbook: Path) -> Run:
    estate.begin("switchover", WEST, runbook=runbook)
    return estate.until("waiting")


def test_what_nothing_needs_can_be_skipped_and_the_journal_says_so(tmp_path: Path) -> None:
    estate = settled()
    estate.world.hook.failure = "the load balancer says nothing"
    told = "  - {name: tell, action: command, parameters: {argv: [tell]}, timeout_s: 5, retries: 0}\n"
    file = tmp_path / "switchover.yaml"
    file.write_text((RUNBOOKS / "switchover.yaml").read_text() + told)
    assert waiting(estate, file).step.name == "tell"
    estate.leader(WEST).coordinator.mover.ask(Skipped("somebody", "done by hand"))
    run = estate.finish(WEST)
    assert run.phase == "succeeded"
    assert run.evidence["tell"].startswith("skipped: ")


def test_a_step_that_the_move_needs_is_not_skipped(tmp_path: Path) -> None:
    estate = settled()
    estate.replicating = False
    estate.settle(3)
    file = tmp_path / "switchover.yaml"
    text = (RUNBOOKS / "switchover.yaml").read_text()
    assert "    timeout_s: 120\n    retries: 1\n" in text
    file.write_text(text.replace("    timeout_s: 120\n    retries: 1\n", "    timeout_s: 1\n    retries: 0\n"))
    assert waiting(estate, file).step.name == "drain"
    with pytest.raises(MrcError) as refused:
        estate.leader(WEST).coordinator.mover.ask(Skipped("somebody"))
    assert refused.value.code == "SKIP_REFUSED"


def test_a_failover_does_not_wait_for_the_effect_whose_place_it_takes() -> None:
    estate = settled()
    estate.replicating = False
    estate.settle(3)
    asked_at_s: list[float] = []
    clock, others = estate.world.clock, estate.world.clock.meanwhile

    def meanwhile() -> None:
        others()
        run = estate.run_of(WEST) if estate.leader(WEST).moving else None  # in the middle of an effect
        if not asked_at_s and run is not None and (run.phase, run.step.name) == ("verifying", "drain"):
            asked_at_s.append(clock.monotonic_s())
            start(estate, WEST, allow_data_loss=True)

    clock.meanwhile = meanwhile
    estate.begin("switchover", WEST)
    run = estate.finish(WEST)
    assert (run.plan.kind, run.phase) == ("failover", "succeeded")
    assert clock.monotonic_s() - asked_at_s[0] < 20

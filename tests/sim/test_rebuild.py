"""A region that came back empty, or without its log, is made anew from the open one, wherever an agent is killed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from mrc.core.errors import MrcError
from mrc.core.failover import fence, rebuild
from mrc.core.failover.execution import AbortAsked, Approved, Run
from mrc.core.model import TopicPartition
from mrc.core.views import FindingView
from mrc.ports import Binding
from mrc.sim.agents import contents
from mrc.sim.kills import Killed
from mrc.sim.world import CONSUMER, EAST, PRODUCER, WEST
from tests.sim.estate import Estate
from tests.sim.test_failback import ledger_of
from tests.sim.test_service import service

ORDERS = TopicPartition("orders", 0)
EXTRA = Binding("topic", "orders", "literal", "User:extra", "write", "allow")
"""A right that nobody has configured: only the open region's ACLs tell of it."""

Harm = Callable[[Estate], None]


def new_disks(estate: Estate) -> None:
    """Nothing is left: topics, ACLs, groups, what Connect had stored."""
    east, connector = estate.world.clusters[EAST], estate.world.replicators[EAST].connectors["mrc.orders.west-east"]
    east.contents.clear()
    east.acls.bindings.clear()
    east.members_of.clear()
    connector.stored, connector.held = {}, {}


def empty_topics(estate: Estate) -> None:
    """As `new_disks`, but somebody has made the topics again, one of them with another number of partitions."""
    new_disks(estate)
    for name, count in estate.world.partitions.items():
        estate.world.clusters[EAST].make_topic(name, count if name == "orders" else count + 1)


def cut(estate: Estate) -> None:
    """One log has lost its end."""
    log = estate.world.clusters[EAST].log(ORDERS)
    log.cut(log.end // 2)


def failed_over(harm: Harm, topics: Mapping[str, int] | None = None) -> Estate:
    """East dies with records that west never gets, west takes writes; east comes back harmed."""
    estate = Estate(topics=topics)
    estate.world.clusters[WEST].add_bindings([EXTRA])
    estate.settle()
    estate.replicating = False
    estate.round()
    estate.producing = False
    estate.lose(EAST)
    assert estate.move("failover", WEST, attested=True).phase == "succeeded"
    estate.replicating = estate.producing = True
    estate.settle(5)
    estate.world.clusters[EAST].reachable = True
    harm(estate)
    estate.regain(EAST)
    estate.settle(10)
    return estate


def planned(estate: Estate, *, allow_data_loss: bool = False) -> dict[str, FindingView]:
    found = service(estate, EAST).plan("orders", "rebuild", EAST, False, allow_data_loss).findings
    return {one.code: one for one in found if one.severity != "error"} | {one.code: one for one in found if one.severity == "error"}


def begin(estate: Estate, *, allow_data_loss: bool = False) -> None:
    reason = "its disks are gone"
    service(estate, EAST).start("orders", "rebuild", EAST, "t", "test", reason, False, allow_data_loss)


def rebuilt(estate: Estate, *, allow_data_loss: bool = False) -> Run:
    begin(estate, allow_data_loss=allow_data_loss)
    run = estate.finish(EAST)
    assert run.phase == "succeeded", run.waiting
    return run


def writes_let_in(estate: Estate) -> list[str]:
    """Which applications' principals may write in east."""
    east = estate.world.clusters[EAST]
    return [one for one in (PRODUCER, EXTRA.principal) if "orders" in east.contents and east.lets_write(one, ORDERS)]


def is_ready(estate: Estate) -> None:
    """East is west's copy, refuses applications, and a switchover to it loses, skips and repeats nothing."""
    assert writes_let_in(estate) == []
    assert EXTRA in estate.world.clusters[EAST].acls.bindings
    answers = service(estate, EAST)
    assert [one for one in answers.status("orders").findings if one.severity == "error"] == []
    assert [one for one in answers.plan("orders", "switchover", EAST, False, False).findings if one.severity == "error"] == []
    for group in estate.world.groups:
        assert set(estate.world.clusters[EAST].positions(group)) == set(estate.world.clusters[WEST].positions(group))
    taken = {value for value, region in estate.applications.acked.items() if region == WEST}
    assert estate.move("switchover", EAST).phase == "succeeded"
    estate.settle()
    estate.drain()
    for tp in estate.world.tps():
        assert contents(estate.world, EAST, tp) == contents(estate.world, WEST, tp)
    present = {value for tp in estate.world.tps() for value in contents(estate.world, EAST, tp)}
    assert taken <= present
    for group, processed in estate.applications.processed.items():
        assert present <= set(processed), f"{group} skipped"
    assert estate.world.clusters[EAST].lets_write(EXTRA.principal, ORDERS)


@pytest.mark.parametrize("harm", [new_disks, empty_topics])
def test_a_region_that_came_back_empty_is_made_anew_and_the_unit_goes_home(harm: Harm) -> None:
    estate = failed_over(harm)
    found = planned(estate)
    assert {"TOPIC_REBUILT", "ACLS_COPIED", "DIVERGENCE_WAITS"} <= found.keys()
    assert [one for one in found.values() if one.severity == "error"] == []
    assert "lost" in found["DIVERGENCE_WAITS"].message
    rebuilt(estate)
    assert ledger_of(estate).state == "lost"
    is_ready(estate)


def test_a_log_that_came_back_shorter_is_deleted_only_when_a_person_says_so() -> None:
    estate = failed_over(cut)
    before = {tp: contents(estate.world, EAST, tp) for tp in estate.world.tps()}
    found = planned(estate)
    assert (found["TOPIC_NOT_EMPTY"].severity, found["DIVERGENCE_WAITS"].severity) == ("error", "error")
    with pytest.raises(MrcError) as refused:
        begin(estate)
    assert refused.value.code in ("TOPIC_NOT_EMPTY", "PLAN_REFUSED")
    with pytest.raises(MrcError) as unsaid:
        service(estate, EAST).start("orders", "rebuild", EAST, "t", "test", " ", False, True)
    assert (unsaid.value.code, unsaid.value.where) == ("BAD_REQUEST", "reason")
    estate.settle()
    assert {tp: contents(estate.world, EAST, tp) for tp in estate.world.tps()} == before
    assert planned(estate, allow_data_loss=True)["TOPIC_NOT_EMPTY"].severity == "warning"
    rebuilt(estate, allow_data_loss=True)
    is_ready(estate)


def test_what_was_listed_is_refused_until_it_was_recovered_and_its_entry_is_not_lost_then() -> None:
    estate = failed_over(lambda estate: None)
    ledger = ledger_of(estate)
    assert ledger.state == "listed"
    assert ledger.divergent > 0
    assert "mrc divergence export" in planned(estate)["DIVERGENCE_WAITS"].message
    answers = service(estate, EAST)
    for doing in ("export", "resolve"):
        list(answers.recover("orders", ledger.execution, doing))
    found = planned(estate)
    assert "DIVERGENCE_WAITS" not in found
    assert found["TOPIC_NOT_EMPTY"].severity == "error"
    rebuilt(estate, allow_data_loss=True)
    assert ledger_of(estate).state == "renewed"
    (told,) = answers.recoveries("orders")
    assert told.accounted


def test_what_was_lost_is_told_for_ever() -> None:
    estate = failed_over(lambda estate: None)
    divergent = ledger_of(estate).divergent
    rebuilt(estate, allow_data_loss=True)
    answers = service(estate, EAST)
    (told,) = answers.recoveries("orders")
    assert (told.state, told.accounted) == ("lost", False)
    assert sum(one.divergent for one in told.partitions) == divergent
    with pytest.raises(MrcError) as refused:
        list(answers.recover("orders", told.execution, "export"))
    assert refused.value.code == "DIVERGENCE_LOST"


def test_the_open_region_is_not_rebuilt() -> None:
    estate = failed_over(new_disks)
    answers = service(estate, WEST)
    plan = answers.plan("orders", "rebuild", WEST, False, True)
    assert [one.code for one in plan.findings if one.severity == "error"] == ["ALREADY_ACTIVE"]


def test_a_region_without_its_connector_is_refused_with_a_way_out() -> None:
    estate = failed_over(new_disks)
    del estate.world.replicators[EAST].connectors["mrc.orders.west-east"]
    found = planned(estate)["REBUILD_REFUSED"]
    assert found.severity == "error"
    assert "initial_state" in found.message


def test_under_the_default_policy_no_flow_could_bring_a_regions_own_records_back() -> None:
    estate = Estate(policy="default")
    estate.settle()
    plan = service(estate, WEST).plan("orders", "rebuild", WEST, False, False)
    assert "REBUILD_REFUSED" in [one.code for one in plan.findings if one.severity == "error"]


def test_rights_for_one_host_are_not_copied_to_all_and_mrcs_own_refusals_not_at_all() -> None:
    estate = failed_over(new_disks)
    west = estate.world.clusters[WEST]
    narrow = Binding("topic", "orders", "literal", "User:batch", "read", "allow")
    west.add_bindings([narrow, Binding("transactional_id", "shop-", "prefixed", PRODUCER, "write", "allow")])
    west.add_bindings([Binding("cluster", "kafka-cluster", "literal", PRODUCER, "alter", "allow")])
    west.for_one_host.add(narrow)
    assert "1 ACLs are for one host" in planned(estate)["ACLS_LEFT_OUT"].message
    rebuilt(estate)
    there = estate.world.clusters[EAST].acls.bindings
    assert narrow not in there
    assert Binding("transactional_id", "shop-", "prefixed", PRODUCER, "write", "allow") in there
    assert not [one for one in there if one.resource == "cluster"]
    assert {one.principal for one in there if one.permission == "deny" and one.operation == "read"} == {CONSUMER}


def test_what_agents_refuse_by_themselves_is_not_copied_for_mrc_would_never_take_it_away() -> None:
    estate = failed_over(new_disks)
    refusal = Binding("topic", "orders", "literal", EXTRA.principal, "write", "deny")
    marked = {refusal, fence.mark(refusal, 1)}
    source = frozenset(estate.world.clusters[WEST].acls.bindings | marked)
    coming = rebuild.lacking(estate.leader(EAST).coordinator.estate.unit, source, frozenset(), frozenset())
    assert EXTRA in coming
    assert not marked & coming


def test_an_operators_refusal_stays_when_the_region_is_opened() -> None:
    estate = failed_over(new_disks)
    refusal = Binding("topic", "orders", "literal", EXTRA.principal, "write", "deny")
    estate.world.clusters[WEST].add_bindings([refusal])
    rebuilt(estate)
    assert estate.move("switchover", EAST).phase == "succeeded"
    estate.settle()
    assert refusal in estate.world.clusters[EAST].acls.bindings
    assert writes_let_in(estate) == [PRODUCER]


def test_a_topic_that_the_plan_did_not_name_is_not_deleted() -> None:
    estate = failed_over(new_disks)
    east = estate.world.clusters[EAST]
    begin(estate)
    east.make_topic("orders", 3)
    east.log(ORDERS).append(next(e.record for e in estate.world.clusters[WEST].log(ORDERS).entries if e.record is not None))
    run = estate.until("waiting", target=EAST)
    assert run.waiting is not None
    assert (run.step.name, run.waiting.code) == ("hold-flow", "PLAN_REFUSED")
    assert len(contents(estate.world, EAST, ORDERS)) == 1
    estate.leader(EAST).coordinator.mover.ask(AbortAsked("test"))
    assert estate.finish(EAST).phase == "aborted"
    assert len(contents(estate.world, EAST, ORDERS)) == 1


@pytest.mark.parametrize("step", ["hold-flow", "make-topics", "start-flow"])
def test_an_abort_leaves_no_topic_deleted_and_no_flow_held_and_a_rebuild_may_follow(step: str) -> None:
    estate = failed_over(cut)
    begin(estate, allow_data_loss=True)
    for _ in range(400):
        estate.round()
        run = estate.run_of(EAST)
        if run is not None and run.phase in ("doing", "verifying") and run.step.name == step:
            break
    estate.leader(EAST).coordinator.mover.ask(AbortAsked("test"))
    assert estate.finish(EAST).phase == "aborted"
    found = estate.leader(EAST).coordinator.estate.store.flow_start(estate.leader(EAST).coordinator.flow)
    assert found is None or not found[0].held
    assert set(estate.world.partitions) <= set(estate.world.clusters[EAST].contents)
    assert (estate.applications.record().region, estate.applications.record().state) == (WEST, "open")
    estate.settle(20)
    service(estate, EAST).start("orders", "rebuild", EAST, "u", "test", "again", False, True)
    assert estate.finish(EAST).phase == "succeeded"
    is_ready(estate)


def test_what_a_rebuild_has_noted_is_deleted_by_nobody_else() -> None:
    estate = failed_over(lambda estate: None)
    topics = {name: content.topic_id for name, content in estate.world.clusters[EAST].contents.items() if name in estate.world.partitions}
    begin(estate, allow_data_loss=True)
    for _ in range(400):
        estate.round()
        found = estate.leader(EAST).coordinator.estate.store.flow_start(estate.leader(EAST).coordinator.flow)
        if found is not None and found[0].held:
            break
    estate.lose(WEST)
    service(estate, EAST).start("orders", "failover", EAST, "u", "test", "west is dead", True, True)
    estate.leader(EAST).coordinator.mover.ask(AbortAsked("test"))
    estate.regain(WEST)  # it is not
    assert estate.finish(EAST, AbortAsked("test")).phase == "aborted"
    estate.settle(40)
    assert estate.move("failback", EAST).phase == "succeeded"  # old_log: keep
    assert {name: estate.world.clusters[EAST].contents[name].topic_id for name in topics} == topics


# ---------------------------------------------------------------- killed at every act


def small() -> Estate:
    estate = failed_over(empty_topics, {"orders": 1, "payments": 1})
    estate.producing = False
    return estate


def acts_of_a_rebuild() -> list[str]:
    estate = small()
    switch = estate.leader(EAST).switch
    switch.armed = True
    rebuilt(estate)
    return switch.acts


ACTS = acts_of_a_rebuild()
KILLED = [(at, name) for at, name in enumerate(ACTS) if name != "append"]
"""Appends are the capture's, which goes on whatever is executed; it is killed where positions are."""


def test_the_rebuild_acts_on_the_world_in_every_way_that_is_killed_below() -> None:
    acts = {"stop", "add_bindings", "delete_topic", "make_topic_like", "ensure_topic", "set_positions", "resume", "commit_positions"}
    assert acts <= set(ACTS)


@pytest.mark.parametrize("at", [at for at, _ in KILLED], ids=[f"{at}-{name}" for at, name in KILLED])
def test_the_agent_may_be_killed_after_any_act(at: int) -> None:
    estate = small()
    leader = estate.leader(EAST)
    leader.switch.die_at(at, after=True)
    try:
        begin(estate)
    except Killed:  # by the journal's first entry
        leader.alive = False
        leader.tree.expire()
    let_in: set[str] = set()
    for _ in range(400):
        estate.round()
        let_in |= set(writes_let_in(estate))
        run = estate.run_of(EAST)
        if run is not None and run.phase in ("succeeded", "aborted"):
            break
        if run is not None and run.phase == "waiting":
            estate.leader(EAST).coordinator.mover.ask(Approved("test"))
    assert run is not None
    assert run.phase == "succeeded", run.waiting
    assert not leader.alive
    assert let_in == set()
    assert ledger_of(estate).state == "lost"
    for tp in estate.world.tps():
        assert contents(estate.world, EAST, tp) == contents(estate.world, WEST, tp)

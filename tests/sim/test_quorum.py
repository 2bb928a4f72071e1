"""Agents that hear no ZooKeeper majority: they refuse writes in their open region in time, and the other region may count on it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest
from prometheus_client import CollectorRegistry

from mrc.agent.service import AgentService
from mrc.core.errors import MrcError
from mrc.core.failover.fence import SELF_FENCE_MARGIN_S
from mrc.core.inventory import Binding
from mrc.core.model import Region
from mrc.core.views import FindingView, PlanView
from mrc.sim.world import EAST, PRODUCER, WEST
from mrc.telemetry.metrics import StatusCollector
from tests.sim.estate import Estate
from tests.sim.test_service import service

AFTER_S = 15.0
LATE = Binding("topic", "orders", "literal", "User:late", "write", "allow")
OPERATORS = Binding("topic", "orders", "literal", PRODUCER, "write", "deny")


@pytest.fixture
def estate() -> Estate:
    """East is open, and its agents fence themselves."""
    made = Estate(self_fence_after_s=AFTER_S)
    made.settle()
    return made


def cut(estate: Estate, region: Region, *, off: bool = True) -> None:
    """Cut a region's agents off from ZooKeeper, or end that."""
    for name in (f"{region}-a", f"{region}-b"):
        estate.agents[name].tree.reachable = not off


def wait(estate: Estate, seconds: float) -> None:
    """Let time pass, in steps of half a second, while nobody writes."""
    estate.producing = False
    for _ in range(round(seconds * 2)):
        estate.world.clock.sleep(0.4)
        estate.round()


def denies(estate: Estate, region: Region = EAST) -> set[Binding]:
    return {b for b in estate.world.clusters[region].acls.bindings if b.permission == "deny"}


def refused(estate: Estate, region: Region = EAST) -> bool:
    """Whether no application can write anything there."""
    for tp in estate.world.tps():
        try:
            estate.world.clusters[region].produce(PRODUCER, tp, b"k", b"a try")
        except MrcError:
            continue
        return False
    return True


def count(estate: Estate, monkeypatch: pytest.MonkeyPatch, made_s: list[float]) -> None:
    """Keep the times at which bindings are added in east, however soon they are taken away."""
    cluster = estate.world.clusters[EAST]
    add = cluster.add_bindings

    def counted(bindings: Iterable[Binding]) -> None:
        made_s.append(estate.world.clock.monotonic_s())
        add(bindings)

    monkeypatch.setattr(cluster, "add_bindings", counted)


def written(estate: Estate) -> dict[str, bytes]:
    """Everything below the replication group in ZooKeeper."""
    return {path: node.data for path, node in estate.world.ensemble.nodes.items() if path.startswith("/groups/")}


def finding(found: tuple[FindingView, ...], code: str) -> FindingView:
    return next(one for one in found if one.code == code)


def planned(answers: AgentService, *, attested: bool = False) -> PlanView:
    return answers.plan("orders", "failover", WEST, attested=attested, allow_data_loss=False)


def codes(view: PlanView) -> dict[str, str]:
    return {one.code: one.severity for one in view.findings}


@pytest.mark.parametrize("whole", [True, False])
def test_the_open_region_refuses_writes_in_time_and_opens_again_with_the_majority(estate: Estate, whole: bool) -> None:
    before = written(estate)
    if whole:
        estate.world.ensemble.quorum = False
    else:
        cut(estate, EAST)
    wait(estate, AFTER_S - 1)
    assert not denies(estate)
    wait(estate, 1 + SELF_FENCE_MARGIN_S)
    assert refused(estate)
    assert not {b.operation for b in denies(estate)} - {"write"}
    if whole:
        assert written(estate) == before
    estate.world.ensemble.quorum = True
    cut(estate, EAST, off=False)
    wait(estate, 10)
    assert not denies(estate)
    assert not refused(estate)


def test_the_default_refuses_nothing_however_long_no_majority_is_heard() -> None:
    estate = Estate()
    estate.settle()
    estate.world.ensemble.quorum = False
    wait(estate, 10 * AFTER_S)
    assert not denies(estate)


def test_the_standby_changes_nothing(estate: Estate) -> None:
    before = denies(estate, WEST)
    assert before
    estate.world.ensemble.quorum = False
    estate.world.clusters[WEST].acls.bindings.add(LATE)
    wait(estate, 2 * AFTER_S)
    assert denies(estate, WEST) == before


@pytest.mark.parametrize("when", ["before", "between", "after the last look"])
def test_an_operators_own_refusal_stays_whenever_it_was_made_before_mrcs(estate: Estate, when: str) -> None:
    bindings = estate.world.clusters[EAST].acls.bindings
    if when == "before":
        bindings.add(OPERATORS)
        wait(estate, 3)
    if when == "after the last look":
        bindings.add(OPERATORS)
    estate.world.ensemble.quorum = False
    if when == "between":
        wait(estate, AFTER_S / 2)
        bindings.add(OPERATORS)
    wait(estate, AFTER_S + SELF_FENCE_MARGIN_S)
    assert refused(estate)
    estate.world.ensemble.quorum = True
    wait(estate, 10)
    assert denies(estate) == {OPERATORS}


def test_agents_that_have_never_read_the_record_refuse_nothing(estate: Estate) -> None:
    estate.world.ensemble.quorum = False
    estate.restart(EAST)
    wait(estate, 3 * AFTER_S)
    assert not denies(estate)


def test_one_agent_alone_without_zookeeper_refuses_nothing_while_the_one_beside_it_leads(
    estate: Estate, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_s: list[float] = []
    count(estate, monkeypatch, made_s)
    estate.leader(EAST).tree.reachable = False
    wait(estate, 4 * AFTER_S)
    assert made_s == []
    # Then the other one loses it too: neither waits for its own time-out anew.
    cut(estate, EAST)
    wait(estate, AFTER_S + SELF_FENCE_MARGIN_S)
    assert refused(estate)


def test_one_agent_that_reaches_nobody_is_contradicted_and_does_not_insist_at_once(estate: Estate, monkeypatch: pytest.MonkeyPatch) -> None:
    made_s = [estate.world.clock.monotonic_s()]
    count(estate, monkeypatch, made_s)
    estate.talking = False
    estate.leader(EAST).tree.reachable = False
    for _ in range(120):
        wait(estate, 0.5)
        if denies(estate):
            estate.round()
            assert not denies(estate)
    assert len(made_s) > 2
    assert all(later - sooner >= AFTER_S for sooner, later in pairwise(made_s))


def test_an_agent_that_wakes_looks_for_a_majority_before_it_refuses(estate: Estate) -> None:
    estate.world.ensemble.quorum = False
    wait(estate, AFTER_S - 2)
    estate.asleep = {"east-a", "east-b"}
    estate.world.ensemble.quorum = True
    wait(estate, 60)
    # They wake without a connection, as after an expired session, and have one a moment later.
    cut(estate, EAST)
    estate.asleep = set()
    estate.round()
    assert not denies(estate)
    cut(estate, EAST, off=False)
    for _ in range(50):
        wait(estate, 0.5)
        assert not denies(estate)


def test_an_agent_that_slept_between_its_look_and_its_act_looks_again(estate: Estate, monkeypatch: pytest.MonkeyPatch) -> None:
    """The majority returns while it sleeps: what it had found is old."""
    cluster, slept = estate.world.clusters[EAST], []
    bindings = cluster.bindings

    def sleeps() -> frozenset[Binding]:
        if not estate.world.ensemble.quorum:
            slept.append(estate.world.clock.monotonic_s())
            monkeypatch.undo()
            estate.producing = False
            estate.world.clock.sleep(60)
            estate.world.ensemble.quorum = True
        return bindings()

    estate.stop("east-b")
    wait(estate, 6)
    estate.world.ensemble.quorum = False
    agent = estate.agents["east-a"]
    wait(estate, AFTER_S - 2)
    estate.asleep = set(estate.agents)  # nobody else looks, or takes away
    monkeypatch.setattr(cluster, "bindings", sleeps)
    while not slept:
        estate.world.clock.sleep(1.0)
        agent.coordinator.quorum_tick()
    assert not denies(estate)
    estate.asleep = set()
    wait(estate, 5)
    assert not denies(estate)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("silent", [True, False])
@pytest.mark.parametrize("at", range(5))
def test_agents_killed_at_any_instant_of_it_leave_nothing_behind(silent: bool, at: int, after: bool) -> None:
    """While writes are refused, or while what was refused is noted and taken away; the operator's own stays."""
    estate = Estate(self_fence_after_s=AFTER_S)
    estate.world.clusters[EAST].acls.bindings.add(OPERATORS)
    estate.settle()
    victim = estate.leader(EAST)
    other = next(agent for agent in estate.agents.values() if agent.name.startswith(EAST) and agent is not victim)
    estate.asleep = {other.name}
    estate.world.ensemble.quorum = False
    victim.switch.at, victim.switch.after = at, after
    victim.switch.armed = silent
    wait(estate, AFTER_S + SELF_FENCE_MARGIN_S)
    assert refused(estate) == (victim.alive or after)
    if silent:
        assert victim.switch.acts == ["add_bindings"]
    victim.switch.armed = True
    estate.world.ensemble.quorum = True
    wait(estate, 3)
    estate.asleep = set()
    wait(estate, 15)
    assert denies(estate) == {OPERATORS}
    assert victim.alive == (len(victim.switch.acts) <= at)
    assert len(victim.switch.acts) > 1 or not victim.alive


def test_status_and_metrics_say_that_a_region_has_fenced_itself_and_stop_saying_so(estate: Estate) -> None:
    registry = CollectorRegistry()
    answers = service(estate, WEST)
    registry.register(StatusCollector(lambda: [answers.status("orders")], "west-a"))

    def shown() -> list[float | None]:
        return [registry.get_sample_value("mrc_self_fenced", {"group": "orders", "region": region}) for region in (EAST, WEST)]

    here = service(estate, EAST)
    assert shown() == [0, 0]
    estate.world.ensemble.quorum = False
    wait(estate, 2 * AFTER_S)
    for view in (answers.status("orders"), here.status("orders")):  # without a majority too
        told = finding(view.findings, "SELF_FENCED")
        assert (told.severity, told.where) == ("warning", EAST)
        assert " since " in told.message
    assert shown() == [1, 0]
    assert next(one.fence.state for one in here.status("orders").regions if one.region == EAST) == "fenced"
    estate.world.ensemble.quorum = True
    wait(estate, 20)
    assert shown() == [0, 0]
    assert all(one.code != "SELF_FENCED" for one in answers.status("orders").findings)


def test_a_failover_may_rest_on_the_self_fence_once_nobody_has_led_for_long_enough(estate: Estate) -> None:
    answers = service(estate, WEST)
    assert codes(planned(answers))["NOT_ATTESTED"] == "error"
    cut(estate, EAST)
    wait(estate, AFTER_S + SELF_FENCE_MARGIN_S)  # the session's time-out is still to be added
    refusal = finding(planned(answers).findings, "NOT_ATTESTED")
    assert "25 s are wanted" in refusal.message
    with pytest.raises(MrcError) as error:
        answers.start("orders", "failover", WEST, "early", "somebody", "", attested=False, allow_data_loss=False)
    assert error.value.code == "NOT_ATTESTED"
    wait(estate, 6)
    assert refused(estate)
    assert "unverified" in finding(planned(answers).findings, "SELF_FENCE_ASSUMED").message
    assert codes(planned(answers))["SELF_FENCE_ASSUMED"] == "warning"
    assert "SELF_FENCE_ASSUMED" not in codes(planned(answers, attested=True))
    answers.start("orders", "failover", WEST, "token", "somebody", "", attested=False, allow_data_loss=False)
    run = estate.finish(WEST)
    assert run.phase == "succeeded"
    assert "self-imposed, unverified" in run.evidence["attest"]
    cut(estate, EAST, off=False)
    wait(estate, 10)
    assert refused(estate)
    assert not refused(estate, WEST)
    assert estate.move("switchover", EAST).phase == "succeeded"
    wait(estate, 5)
    assert not denies(estate)


def test_without_self_fencing_only_a_persons_word_counts() -> None:
    estate = Estate()
    estate.settle()
    cut(estate, EAST)
    wait(estate, 100)
    refusal = finding(planned(service(estate, WEST)).findings, "NOT_ATTESTED")
    assert refusal.severity == "error"
    assert "self-imposed" not in refusal.message


def test_an_agent_that_has_just_started_must_have_watched_for_that_long_itself(estate: Estate) -> None:
    cut(estate, EAST)
    wait(estate, 100)
    estate.restart(WEST)
    wait(estate, AFTER_S + SELF_FENCE_MARGIN_S)
    assert codes(planned(service(estate, WEST)))["NOT_ATTESTED"] == "error"
    wait(estate, 6)
    assert codes(planned(service(estate, WEST)))["SELF_FENCE_ASSUMED"] == "warning"


def test_a_leader_that_came_and_went_between_two_looks_begins_the_count_anew(estate: Estate) -> None:
    cut(estate, EAST)
    wait(estate, 40)
    estate.asleep = {"west-a", "west-b"}
    cut(estate, EAST, off=False)
    wait(estate, 2)
    cut(estate, EAST)
    wait(estate, 6)
    estate.asleep = set()
    wait(estate, 5)
    assert codes(planned(service(estate, WEST)))["NOT_ATTESTED"] == "error"


def test_a_leader_that_is_back_before_the_step_stops_the_failover(estate: Estate) -> None:
    cut(estate, EAST)
    wait(estate, 40)
    answers = service(estate, WEST)
    answers.start("orders", "failover", WEST, "token", "somebody", "", attested=False, allow_data_loss=False)
    cut(estate, EAST, off=False)
    estate.agents["east-a"].leadership.tick()
    run = estate.until("waiting")
    assert run.waiting is not None
    assert (run.step.name, run.waiting.code) == ("attest", "NOT_ATTESTED")
    assert estate.applications.record().region == EAST


def test_what_agents_add_to_the_fence_of_a_move_goes_with_it(estate: Estate) -> None:
    """A writer that was allowed while no majority was heard; the move fences the others."""
    estate.replicating = False
    estate.begin("switchover", WEST)
    wait(estate, 3)
    assert estate.applications.record().state == "draining"
    estate.world.ensemble.quorum = False
    before = denies(estate)
    estate.world.clusters[EAST].acls.bindings.add(LATE)
    wait(estate, 2 * AFTER_S)
    assert "User:late" in {b.principal for b in denies(estate) - before}
    estate.world.ensemble.quorum = True
    estate.replicating = True
    assert estate.finish(WEST).phase == "succeeded"
    wait(estate, 5)
    assert estate.move("switchover", EAST).phase == "succeeded"
    wait(estate, 5)
    assert not denies(estate)

"""Routes follow the record: set by a move, mended when they are lost or late, never overwritten where somebody else has set them."""

from __future__ import annotations

import pytest

from mrc.agent import routing
from mrc.agent.leadership import AgentNode, Leadership
from mrc.agent.service import AgentService
from mrc.config.runbook import load_runbook
from mrc.core.errors import MrcError
from mrc.core.failover.execution import Approved, Run
from mrc.core.failover.runbook import MoveKind, Runbook
from mrc.core.inventory import Pointing
from mrc.core.model import Region
from mrc.sim.routes import FakeRoute
from mrc.sim.world import EAST, WEST
from tests.sim.estate import RUNBOOKS, Estate


def estate_with(*routes: FakeRoute, carries: bool = False) -> Estate:
    estate = Estate()
    estate.world.routes += routes
    estate.world.carries_producers = carries
    for region in (EAST, WEST):
        estate.restart(region)
    estate.settle()
    return estate


def route(leads_to: str = EAST, name: str = "one") -> FakeRoute:
    return FakeRoute((EAST, WEST), leads_to, name)


def service(estate: Estate, region: Region) -> AgentService:
    """The answers of the agent that leads in a region, with runbooks as its wiring gives them."""
    agent = estate.leader(region)
    me = AgentNode(agent.name, f"{agent.name}:0", "sim")

    def book(_: str, kind: str) -> tuple[Runbook, str]:
        found, digest = load_runbook(RUNBOOKS / f"{kind}.yaml")
        return agent.coordinator.as_seen(found), digest

    peers = {name: Leadership(agent.tree, name, me) for name in (EAST, WEST)}
    return AgentService(me, region, agent.leadership, peers, {"orders": agent.coordinator}, book)


def waits(estate: Estate) -> Run:
    return estate.until("waiting")


def codes(estate: Estate, kind: str = "switchover", *, restarted: bool = False) -> dict[str, str]:
    plan = service(estate, WEST).plan("orders", kind, WEST, attested=True, allow_data_loss=False, restarted=restarted)
    return {one.code: one.severity for one in plan.findings}


def start(estate: Estate, kind: str = "switchover", *, restarted: bool = False) -> None:
    attested = kind == "failover"
    service(estate, WEST).start("orders", kind, WEST, "token", "ann", "", attested=attested, allow_data_loss=False, restarted=restarted)


def test_a_move_sends_clients_to_the_target_and_says_so() -> None:
    one, two = route(), route(name="two")
    estate = estate_with(one, two)
    run = estate.move("switchover", WEST)
    assert run.phase == "succeeded"
    assert (one.leads_to, two.leads_to) == (WEST, WEST)
    assert run.evidence["route"] == "the record names west; one leads to west; two leads to west"


@pytest.mark.parametrize("kind", ["switchover", "failover"])
def test_no_client_is_sent_before_the_target_is_open(kind: MoveKind) -> None:
    one = route()
    estate = estate_with(one)
    opened: list[bool] = []
    one.before_change = lambda: opened.append(estate.applications.record().region == WEST and estate.applications.record().state == "open")
    estate.move(kind, WEST, attested=True)
    assert opened
    assert all(opened)


def test_a_route_that_was_lost_or_came_late_is_mended() -> None:
    """A proxy was restarted with its file's state, or a leader that had slept sends its update late."""
    one = route()
    estate = estate_with(one)
    estate.move("switchover", WEST)
    for wrong in (EAST, ""):
        one.leads_to = wrong
        estate.settle()
        assert one.leads_to == WEST
    assert estate.leader(WEST).coordinator.route_tick() == ()


def test_what_leads_to_neither_region_stays_as_somebody_else_has_set_it() -> None:
    one = route("a page that says sorry")
    estate = estate_with(one)
    assert codes(estate)["ROUTE_ELSEWHERE"] == "error"
    with pytest.raises(MrcError) as raised:
        start(estate)
    assert raised.value.code == "ROUTE_ELSEWHERE"
    assert codes(estate, "failover")["ROUTE_ELSEWHERE"] == "warning"
    start(estate, "failover")
    run = waits(estate)
    assert run.waiting is not None
    assert (run.step.name, run.waiting.code) == ("route", "ROUTE_ELSEWHERE")
    assert one.leads_to == "a page that says sorry"
    one.leads_to = WEST
    assert estate.finish(WEST).phase == "succeeded"


def test_a_change_by_somebody_else_in_between_is_not_overwritten() -> None:
    one = route(WEST)
    estate = estate_with()

    def theirs() -> None:
        one.leads_to = "theirs"

    one.before_change = theirs
    estate.world.routes.append(one)
    estate.restart(EAST)
    estate.settle()
    assert one.leads_to == "theirs"
    assert one.changes == []


def test_one_silent_route_keeps_no_other_from_being_set_and_the_move_waits_for_it() -> None:
    silent, other = route(), route(name="two")
    estate = estate_with(silent, other)
    estate.begin("switchover", WEST)
    estate.until("verifying")
    silent.reachable = False
    run = waits(estate)
    assert run.waiting is not None
    assert (run.step.name, run.waiting.code) == ("route", "ROUTE_UNREACHABLE")
    assert other.leads_to == WEST
    silent.reachable = True
    assert estate.finish(WEST).phase == "succeeded"
    assert silent.leads_to == WEST


def test_a_route_that_cannot_be_read_or_leads_to_the_other_region_is_a_finding() -> None:
    one = route()
    estate = estate_with(one)
    assert not codes(estate).keys() & {"ROUTE_UNREACHABLE", "ROUTE_ELSEWHERE", "PRODUCERS_CARRIED"}
    one.reachable = False
    estate.settle()
    assert codes(estate)["ROUTE_UNREACHABLE"] == "error"
    assert codes(estate, "failover")["ROUTE_UNREACHABLE"] == "warning"
    status = service(estate, EAST).status("orders")
    assert "ROUTE_UNREACHABLE" in {one.code for one in status.findings}


def test_a_record_that_changed_since_it_was_read_changes_no_route() -> None:
    """The agent slept between reading the record and setting the route; the other region was opened meanwhile."""
    one = route()
    estate = estate_with(one)
    estate.move("switchover", WEST)
    late = estate.leader(WEST).coordinator.estate
    one.leads_to = EAST
    read = one.read

    def slow() -> Pointing:
        one.read = read  # type: ignore[method-assign] # one slow answer
        seen = read()
        estate.move("switchover", EAST)
        return seen

    one.read = slow  # type: ignore[method-assign]
    with pytest.raises(MrcError) as raised:
        routing.reconcile(late, late.leadership.check)
    assert raised.value.code == "STALE_TERM"
    estate.settle()
    assert one.leads_to == EAST


# ---------------------------------------------------------------- producers that a redirect would carry along


def test_a_redirect_that_may_carry_producers_is_refused_until_a_person_answers_for_them() -> None:
    one = route()
    estate = estate_with(one, carries=True)
    assert codes(estate)["PRODUCERS_CARRIED"] == "error"
    with pytest.raises(MrcError) as raised:
        start(estate)
    assert raised.value.code == "PRODUCERS_CARRIED"
    assert codes(estate, restarted=True)["PRODUCERS_CARRIED"] == "warning"


def test_the_step_waits_for_the_word_that_they_are_stopped_and_no_client_is_sent_before() -> None:
    one = route()
    estate = estate_with(one, carries=True)
    book = service(estate, WEST).plan("orders", "switchover", WEST, attested=False, allow_data_loss=False, restarted=True)
    assert [step.name for step in book.steps if step.approval] == ["route"]
    start(estate, restarted=True)
    run = waits(estate)
    assert (run.step.name, run.waiting.code if run.waiting else None) == ("route", "")
    estate.settle(30)
    assert estate.applications.record().region == WEST
    assert one.leads_to == EAST
    estate.leader(WEST).coordinator.mover.ask(Approved("ann", "all stopped"))
    assert estate.finish(WEST).phase == "succeeded"
    assert one.leads_to == WEST
    execution = estate.leader(WEST).coordinator.estate.store.executions()[-1]
    told = [entry.detail for entry in service(estate, WEST).history(execution)]
    assert any("ann attests that producers are started anew" in one for one in told)
    one.leads_to = EAST
    estate.settle()
    assert one.leads_to == WEST, "once it was approved, the route is kept there"


def test_where_nobody_has_answered_for_the_producers_no_route_is_set() -> None:
    """The settings say no longer what producers are: changed between the plan and its step."""
    one = route()
    estate = estate_with(one)
    estate.begin("switchover", WEST)
    estate.until("verifying")
    estate.world.carries_producers = True
    estate.restart(WEST)
    run = waits(estate)
    assert run.waiting is not None
    assert (run.step.name, run.waiting.code) == ("route", "PRODUCERS_CARRIED")
    estate.settle(30)
    assert one.leads_to == EAST
    assert one.changes == []


def acts_of_a_move() -> list[str]:
    estate = estate_with(route())
    estate.begin("switchover", WEST)
    estate.leader(WEST).switch.armed = True
    agent = estate.leader(WEST)
    estate.finish(WEST)
    return agent.switch.acts


def test_killed_at_every_change_of_a_route_the_other_agent_ends_the_move_alike() -> None:
    acts = acts_of_a_move()
    points = [index for index, act in enumerate(acts) if act == "point"]
    assert points
    for index in points:
        for after in (False, True):
            one = route()
            estate = estate_with(one)
            estate.begin("switchover", WEST)
            agent = estate.leader(WEST)
            agent.switch.armed, agent.switch.at, agent.switch.after = True, index, after
            assert estate.finish(WEST).phase == "succeeded"
            assert not agent.alive
            assert one.leads_to == WEST
            estate.drain()
            assert estate.wrong() == []

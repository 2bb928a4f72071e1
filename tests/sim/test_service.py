"""What an agent answers while the world around it is broken: what it cannot read is Unknown, never the last value."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest

from mrc.agent.leadership import AgentNode, Leadership
from mrc.agent.service import AgentService
from mrc.cli.status import DEADLINE_S
from mrc.config.runbook import load_runbook
from mrc.core.errors import MrcError
from mrc.core.failover.findings import findings
from mrc.core.failover.runbook import MoveKind
from mrc.core.model import GroupId, Known, Reading, Region, Unknown
from mrc.core.views import FindingView, FlowView
from mrc.ports import Binding
from mrc.sim.tree import Stored
from mrc.sim.world import EAST, PROBE, WEST
from tests.sim.estate import RUNBOOKS, Estate


def service(estate: Estate, region: Region) -> AgentService:
    """The answers of the agent that leads in a region."""
    agent = estate.leader(region)
    me = AgentNode(agent.name, f"{agent.name}:0", "sim")
    peers = {name: Leadership(agent.tree, name, me) for name in (EAST, WEST)}
    return AgentService(
        me, region, agent.leadership, peers, {"orders": agent.coordinator}, lambda _, kind: load_runbook(RUNBOOKS / f"{kind}.yaml")
    )


def known(reading: Reading[float]) -> float:
    assert isinstance(reading, Known), reading
    return reading.value


def reason(reading: Reading[float]) -> str:
    assert isinstance(reading, Unknown), reading
    return reading.reason


@pytest.fixture
def estate() -> Estate:
    """East has been left and come home to: west's log holds copies made before and after its flow was stopped."""
    made = Estate()
    made.settle()
    for target in (WEST, EAST):
        assert made.move("switchover", target).phase == "succeeded"
        made.settle()
    return made


def standing_by(estate: Estate) -> FlowView:
    (view,) = service(estate, EAST).lag("orders")
    assert (view.source, view.target, view.wanted) == (WEST, EAST, "stopped")
    assert len(view.partitions) == 7
    return view


def test_a_flow_that_stands_by_shows_its_position_and_the_live_end_and_has_nothing_to_copy(estate: Estate) -> None:
    before = standing_by(estate)
    estate.settle()
    after = standing_by(estate)
    for then, now in zip(before.partitions, after.partitions, strict=True):
        assert 0 < known(now.replicated) == known(then.replicated) < known(then.source_end) < known(now.source_end)
        assert known(now.lag_records) == known(now.lag_seconds) == 0
    assert after.rpo.startswith("nothing")


def test_of_a_flow_that_stands_by_nothing_is_claimed_while_its_source_is_silent_or_not_fenced(estate: Estate) -> None:
    estate.world.lose(WEST)
    estate.settle(2)
    silent = standing_by(estate)
    assert {reason(p.source_end) for p in silent.partitions} == {"cluster-unreachable"}
    assert {reason(p.lag_records) for p in silent.partitions} == {"cluster-unreachable"}
    assert known(silent.partitions[0].replicated) > 0
    assert silent.rpo == "unknown: cluster-unreachable"
    estate.world.regain(WEST)
    estate.leader(EAST).coordinator.observer.refresh(WEST)  # it answers again, but no fence was proved since
    assert {reason(p.lag_records) for p in standing_by(estate).partitions} == {"fence-not-proved"}


def test_groups_are_asked_for_again_only_when_what_is_known_of_them_is_old(estate: Estate) -> None:
    observer, cluster, billing = estate.leader(EAST).coordinator.observer, estate.world.clusters[EAST], GroupId("billing")

    def members() -> int:
        groups = observer.refresh(EAST, groups_age_max_s=10).groups
        assert isinstance(groups, Known)
        return groups.value[billing].members

    observer.refresh(EAST)
    before = members()
    cluster.members_of[billing].members = before + 3
    assert members() == before
    estate.world.clock.sleep(10)
    assert members() == before + 3
    cluster.members_of[billing].members = before
    estate.leader(EAST).coordinator.observer.observe()  # as a plan does: what it says is always of now
    assert members() == before


def test_a_flow_into_a_silent_region_is_unknown_for_that_reason(estate: Estate) -> None:
    estate.world.lose(WEST)
    estate.settle(5)
    (view,) = service(estate, WEST).lag("orders")
    assert (reason(view.lag_records), reason(view.lag_seconds)) == ("cluster-unreachable", "cluster-unreachable")
    assert view.rpo == "unknown: cluster-unreachable"


def test_a_flow_that_somebody_paused_grows_behind(estate: Estate) -> None:
    answers = service(estate, WEST)
    estate.replicating = False
    estate.settle(2)
    (before,) = answers.lag("orders")
    estate.settle()
    (after,) = answers.lag("orders")
    assert known(after.lag_records) > known(before.lag_records) > 0
    assert known(after.lag_seconds) > 0
    assert all(known(p.replicated) <= known(p.source_end) for p in after.partitions)


def test_without_a_quorum_status_is_answered_without_the_record_and_says_what_it_was() -> None:
    estate = Estate()
    estate.settle()
    answers = service(estate, WEST)
    assert answers.status("orders").record is not None
    estate.world.ensemble.quorum = False
    view = answers.status("orders")
    assert view.record is None
    assert {region.role for region in view.regions} == {"unknown"}
    assert all(isinstance(region.kafka, Known) for region in view.regions)
    assert {flow.wanted for flow in view.flows} == {"unknown"}
    assert (view.findings[0].code, view.findings[0].severity) == ("ZOOKEEPER_UNREACHABLE", "error")
    assert "east was open, epoch 1" in view.findings[0].message
    with pytest.raises(MrcError, match="ZOOKEEPER_UNREACHABLE"):
        answers.plan("orders", "switchover", "west", attested=False, allow_data_loss=False)
    estate.world.ensemble.quorum = True
    estate.settle(5)
    assert service(estate, WEST).status("orders").record is not None


def test_a_dead_source_is_the_cause_that_a_refusal_names(estate: Estate) -> None:
    estate.world.lose(EAST)
    estate.settle(2)
    with pytest.raises(MrcError) as refused:
        service(estate, WEST).start("orders", "switchover", "west", "token", "somebody", "", attested=False, allow_data_loss=False)
    assert refused.value.code == "CLUSTER_UNREACHABLE"
    assert "CONNECT_UNREACHABLE" in refused.value.message
    assert estate.leader(WEST).coordinator.estate.store.current()[0] == ""


def test_a_plan_names_the_leaders_of_the_open_region_that_still_refuse_because_of_an_earlier_fence(estate: Estate) -> None:
    def lingering(kind: str) -> list[FindingView]:
        plan = service(estate, WEST).plan("orders", kind, "west", attested=True, allow_data_loss=False)
        return [one for one in plan.findings if one.code == "FENCE_LINGERS"]

    assert lingering("switchover") == []
    east, refusal = estate.world.clusters[EAST], Binding("topic", "orders", "literal", PROBE, "write", "deny")
    east.add_bindings([refusal])
    east.late_s[1] = 1_000.0
    east.remove_bindings([refusal])
    (found,) = lingering("switchover")
    assert (found.severity, found.where) == ("warning", EAST)
    assert "refuse writes on orders-1, because of an earlier fence" in found.message
    assert lingering("failover") == []
    east.catch_up()
    assert lingering("switchover") == []


def test_without_a_probe_no_switchover_is_planned_and_the_others_warn_that_the_fence_cannot_be_proved(estate: Estate) -> None:
    seen = estate.leader(WEST).coordinator.observer.observe()
    unproved = msgspec.structs.replace(seen, unit=msgspec.structs.replace(seen.unit, probe=""))
    severities: dict[MoveKind, str] = {"switchover": "error", "failover": "warning", "fence": "warning"}
    for kind, severity in severities.items():
        assert "PROBE_MISSING" not in {one.code for one in findings(seen, kind, WEST, attested=True)}
        (found,) = (one for one in findings(unproved, kind, WEST, attested=True) if one.code == "PROBE_MISSING")
        assert (found.severity, found.where) == (severity, EAST)
        assert "fence of east cannot be proved" in found.message


def test_a_garbled_plan_keeps_no_move_back_and_is_named_but_the_token_in_it_begins_nothing_twice(estate: Estate) -> None:
    answers = service(estate, WEST)
    begun = answers.start("orders", "switchover", "west", "token-1", "somebody", "", attested=False, allow_data_loss=False)
    assert estate.finish(WEST).phase == "succeeded"
    assert estate.move("switchover", EAST).phase == "succeeded"
    nodes, path = estate.world.ensemble.nodes, f"/groups/orders/executions/{begun.id}"
    nodes[path] = Stored(nodes[path].data[:-3])
    with pytest.raises(MrcError) as refused:
        answers.start("orders", "switchover", "west", "token-1", "somebody", "", attested=False, allow_data_loss=False)
    assert (refused.value.code, refused.value.where) == ("GARBLED_RECORD", f"ZooKeeper /mrc{path}")
    estate.settle(5)
    again = service(estate, WEST).start("orders", "switchover", "west", "token-2", "somebody", "", attested=False, allow_data_loss=False)
    assert again.id != begun.id
    assert estate.finish(WEST).phase == "succeeded"
    estate.leader(WEST).coordinator.archive_tick()
    assert [(one.code, one.where) for one in service(estate, WEST).status("orders").findings if begun.id in one.message] == [
        ("GARBLED_RECORD", f"ZooKeeper /mrc{path}")
    ]


@pytest.mark.parametrize("node", ["", "/entries/000003"])
def test_a_garbled_execution_stands_in_its_place_in_the_history_and_says_where_it_is(estate: Estate, node: str) -> None:
    answers, nodes = service(estate, WEST), estate.world.ensemble.nodes
    first, second = answers.executions("orders")
    journal = answers.history(first.id)
    path = f"/groups/orders/executions/{first.id}{node}"
    nodes[path] = Stored(nodes[path].data[:-3])
    for agent in estate.agents.values():
        agent.coordinator.mover.drop()
    garbled, other = service(estate, EAST).executions("orders")
    assert other == second
    assert (garbled.id, garbled.status) == (first.id, "unreadable")
    assert garbled.waits_for.startswith("GARBLED_RECORD")
    assert f"(ZooKeeper /mrc{path})" in garbled.waits_for
    for then, now in zip(journal, answers.history(first.id), strict=True):
        if node and now.number == 3:
            assert (now.what, now.at_ms) == ("unreadable", 0)
            assert f"/mrc{path}" in now.detail
        else:
            assert now == then


def objectives(estate: Estate, rpo_s: float | None, rto_s: float | None) -> dict[str, tuple[str, str]]:
    """Severity and place of what status and a plan to west find about these objectives."""
    coordinator = estate.leader(WEST).coordinator
    asked = dataclasses.replace(coordinator.estate, unit=msgspec.structs.replace(coordinator.estate.unit, rpo_s=rpo_s, rto_s=rto_s))
    coordinator.estate = asked
    answers = service(estate, WEST)
    found = [
        *answers.plan("orders", "switchover", "west", attested=False, allow_data_loss=False).findings,
        *answers.status("orders").findings,
    ]
    return {one.code: (one.severity, one.where) for one in found if one.code in ("RPO_EXCEEDED", "RTO_EXCEEDED")}


def test_more_lag_or_a_longer_move_than_the_objectives_is_a_warning(estate: Estate) -> None:
    last = service(estate, WEST).executions("orders")[-1]
    took_s = (last.ended_at_ms - last.started_at_ms) / 1000
    assert objectives(estate, 5.0, took_s) == {}
    assert objectives(estate, None, took_s - 0.001) == {"RTO_EXCEEDED": ("warning", last.id)}
    estate.replicating = False
    estate.settle()
    lag_s = known(service(estate, WEST).lag("orders")[0].lag_seconds)
    assert lag_s > 0
    assert objectives(estate, lag_s / 2, None) == {"RPO_EXCEEDED": ("warning", "east->west")}
    assert objectives(estate, lag_s * 2, None) == {}
    view = service(estate, WEST).status("orders")
    assert [one for one in view.findings if one.code == "RPO_EXCEEDED"] == []


def move_until(estate: Estate, step: str) -> str:
    """Begin a switchover to west and let it come to a step; return the execution's id."""
    estate.settle()
    estate.begin("switchover", WEST)
    return estate.until_step(step).plan.id


@pytest.mark.parametrize("step", ["drain", "stop-flow", "release-groups", "move-positions"])
def test_a_move_to_a_region_that_died_is_undone_from_where_it_came(step: str) -> None:
    estate = Estate()
    execution = move_until(estate, step)
    estate.lose(WEST)
    estate.settle(5)
    answers = service(estate, EAST)
    answers.abort(execution, "test", "west is dead")
    for _ in range(200):
        estate.round()
        if answers.execution(execution).status == "aborted":
            break
    assert answers.execution(execution).status == "aborted"
    assert (estate.applications.record().region, estate.applications.record().state) == (EAST, "open")
    assert estate.world.clusters[EAST].acls.allows("User:producer", "write", "topic", "orders")
    acked = len(estate.applications.acked)
    estate.regain(WEST)
    estate.settle(30)
    assert len(estate.applications.acked) > acked
    assert estate.move("switchover", WEST).phase == "succeeded"
    estate.settle()
    estate.drain()
    assert estate.wrong() == []


def test_a_move_is_not_undone_from_elsewhere_while_somebody_is_there() -> None:
    estate = Estate()
    execution = move_until(estate, "drain")
    with pytest.raises(MrcError) as raised:
        service(estate, EAST).abort(execution, "test", "")
    assert raised.value.code == "NOT_LEADER"


@pytest.mark.parametrize("after", [0, 2, 5])
def test_an_ensemble_that_freezes_costs_a_status_less_than_its_client_waits(
    estate: Estate, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    answers, world = service(estate, WEST), estate.world
    tree = estate.leader(WEST).tree
    world.clock.meanwhile = lambda: None
    asked, answer = 0, tree._answer

    def freezing() -> dict[str, Stored]:
        nonlocal asked
        world.ensemble.frozen = asked >= after
        asked += 1
        return answer()

    monkeypatch.setattr(tree, "_answer", freezing)
    began_s = world.clock.monotonic_s()
    view = answers.status("orders")
    assert world.clock.monotonic_s() - began_s < DEADLINE_S * 0.8
    assert [one.where for one in view.findings if one.code == "ZOOKEEPER_UNREACHABLE"] == ["tree"]
    assert (view.record is None) == (after < 2)
    assert all(isinstance(region.kafka, Known) for region in view.regions)


def test_a_plan_counts_what_groups_would_read_again_where_positions_are_bounded(estate: Estate, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = service(estate, WEST)
    assert "POSITIONS_BOUNDED" not in {
        one.code for one in asked.plan("orders", "switchover", WEST, attested=False, allow_data_loss=False).findings
    }
    capture = estate.leader(WEST).coordinator.capture
    seen = capture.snapshot()
    bounded = [
        msgspec.structs.replace(one, translation=msgspec.structs.replace(one.translation, type="bounded", repeats_max=number + 1))
        for number, one in enumerate(seen.checkpoints[:3])
    ]
    changed = msgspec.structs.replace(seen, checkpoints=(*bounded, *seen.checkpoints[3:]))
    monkeypatch.setattr(capture, "snapshot", lambda: changed)
    (finding,) = (
        one
        for one in asked.plan("orders", "switchover", WEST, attested=False, allow_data_loss=False).findings
        if one.code == "POSITIONS_BOUNDED"
    )
    assert finding.severity == "warning"
    worst = bounded[-1]
    assert f"3 positions are bounded: up to 6 records would be read again in all, most by {worst.group}" in finding.message
    assert f"{worst.topic}-{worst.partition} (up to 3)" in finding.message

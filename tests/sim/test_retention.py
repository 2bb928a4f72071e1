"""Retention in the standby: a group that would skip what was deleted there is named, and no planned move begins or ends over it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mrc.agent.flow_lag import ENDS_EVERY_S, STARTS_EVERY_S
from mrc.core.failover.execution import AbortAsked
from mrc.core.model import Offset, TopicPartition
from mrc.core.views import FindingView
from mrc.ports import Position
from mrc.sim.agents import contents
from mrc.sim.world import EAST, WEST
from tests.sim.estate import BILLING, SHIPPING, Estate
from tests.sim.test_service import service

TP = TopicPartition("orders", 0)
GONE = 5
"""Records that the standby deletes and the idle group has not read."""


@pytest.fixture
def estate() -> Estate:
    """An estate in which one group stands still on every partition while records come."""
    estate = Estate()
    estate.settle()
    estate.consuming = {BILLING: 1_000, SHIPPING: 0}
    estate.settle(40)
    return estate


def position(estate: Estate) -> int:
    """Where the idle group stands in the east."""
    return estate.world.clusters[EAST].positions(SHIPPING)[TP].offset


def delete(estate: Estate, records: int = GONE) -> int:
    """Let the standby's retention take records that the idle group has not read; return the first that is left."""
    start = position(estate) + records
    estate.world.clusters[WEST].log(TP).trim(start)
    return start


def look(estate: Estate) -> None:
    """Let the agents ask once more where the logs start."""
    estate.world.clock.sleep(STARTS_EVERY_S)
    estate.settle()


def findings(estate: Estate, kind: str) -> list[FindingView]:
    """What a plan to the west says of deleted copies."""
    plan = service(estate, WEST).plan("orders", kind, WEST, kind == "failover", False)
    return [finding for finding in plan.findings if finding.code == "COPIES_DELETED"]


def unread(estate: Estate) -> set[bytes]:
    """What is in the east and the group has not processed."""
    held = {value for tp in estate.world.tps() for value in contents(estate.world, EAST, tp)}
    return held - set(estate.applications.processed[SHIPPING])


@pytest.mark.parametrize("anew", [False, True], ids=["mapped", "mapped-after-the-deletion"])
def test_a_plan_names_the_group_the_partition_and_how_many_records_it_would_skip(estate: Estate, anew: bool) -> None:
    stands, start = position(estate), delete(estate)
    if anew:
        del estate.world.clusters[WEST].contents["mrc.offset-map.east.internal"]
        estate.restart(WEST)
        estate.settle(60)
    look(estate)
    (finding,) = findings(estate, "switchover")
    assert (finding.severity, finding.where) == ("error", "orders-0")
    assert f"shipping on orders-0 at {stands} would skip up to {GONE} records" in finding.message
    assert f"to offset {start}," in finding.message
    assert [one.severity for one in findings(estate, "failover")] == ["warning"]


def test_nothing_is_said_of_what_the_source_has_deleted_too(estate: Estate) -> None:
    start = delete(estate)
    look(estate)
    assert findings(estate, "switchover") != []
    estate.world.clusters[EAST].log(TP).trim(start)
    look(estate)
    assert findings(estate, "switchover") == []


def test_a_move_waits_until_the_group_has_read_on_and_then_skips_nothing(estate: Estate) -> None:
    delete(estate)
    look(estate)
    estate.begin("switchover", WEST)
    run = estate.until("waiting")
    assert run.waiting is not None
    assert (run.step.name, run.waiting.code) == ("preflight", "PLAN_REFUSED")
    assert "COPIES_DELETED: shipping on orders-0" in run.waiting.message
    estate.consuming = {BILLING: 1_000, SHIPPING: 1_000}
    estate.settle(20)
    assert estate.finish(WEST).phase == "succeeded"
    estate.drain()
    assert unread(estate) == set()


def test_a_group_that_is_reset_in_the_source_skips_what_its_operator_let_it_skip(estate: Estate) -> None:
    start = delete(estate)
    east = estate.world.clusters[EAST]
    east.leave(SHIPPING)
    east.commit_positions(SHIPPING, {TP: Position(Offset(start))})
    look(estate)
    assert findings(estate, "switchover") == []
    assert estate.move("switchover", WEST).phase == "succeeded"
    estate.drain()
    assert len(unread(estate)) == GONE


def test_copies_that_are_deleted_in_the_middle_of_a_move_are_found_while_there_is_a_way_back(estate: Estate) -> None:
    estate.replicating = False
    estate.begin("switchover", WEST)
    estate.until_step("drain")
    delete(estate)
    estate.replicating = True
    run = estate.until("waiting")
    assert run.waiting is not None
    assert (run.step.name, run.waiting.code) == ("move-positions", "NOT_VERIFIED")
    assert "COPIES_DELETED: shipping on orders-0" in run.waiting.message
    estate.leader(WEST).coordinator.mover.ask(AbortAsked("test"))
    assert estate.until("aborted").phase == "aborted"
    estate.drain()
    assert unread(estate) == set()


def test_an_unplanned_move_begins_where_the_log_does(estate: Estate) -> None:
    start = delete(estate)
    estate.settle(20)
    estate.lose(EAST)
    assert estate.move("failover", WEST, attested=True).phase == "succeeded"
    assert estate.world.clusters[WEST].positions(SHIPPING)[TP].offset >= start


def test_where_logs_start_is_asked_seldom_however_often_their_ends_are(estate: Estate, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, int] = {}
    for region, cluster in estate.world.clusters.items():
        for method in ("starts", "ends"):
            monkeypatch.setattr(cluster, method, counted(asked, f"{method} {region}", getattr(cluster, method)))
    capture = estate.leader(WEST).coordinator.capture
    began_s = estate.world.clock.monotonic_s()
    while (passed_s := estate.world.clock.monotonic_s() - began_s) < 3 * STARTS_EVERY_S:
        estate.world.clock.sleep(0.3)
        estate.leader(WEST).leadership.tick()
        capture.tick()
    assert 2 <= asked["starts east"] <= passed_s / STARTS_EVERY_S + 1
    assert asked["ends east"] > passed_s / ENDS_EVERY_S / 2


def counted(asked: dict[str, int], name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def count(*args: Any) -> Any:
        asked[name] = asked.get(name, 0) + 1
        return method(*args)

    return count

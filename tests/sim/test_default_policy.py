"""Moves of groups under the default policy: both flows always on, groups read what is written where they are and the other's copies."""

from __future__ import annotations

import msgspec
import pytest

from mrc.core.failover.execution import AbortAsked
from mrc.core.failover.findings import findings
from mrc.core.failover.ledger import Ledger
from mrc.core.failover.runbook import MoveKind
from mrc.core.model import Flow, Region, TopicPartition
from mrc.sim.agents import contents
from mrc.sim.world import CONSUMER, EAST, PRODUCER, WEST, connector
from tests.sim.estate import BILLING, SHIPPING, Estate


def settled(*, exactly_once: bool = False) -> Estate:
    estate = Estate(policy="default", exactly_once=exactly_once)
    estate.settle()
    return estate


def ledger(estate: Estate, region: Region) -> Ledger:
    ((found, _),) = estate.leader(region).coordinator.estate.store.ledgers()
    return found


@pytest.mark.parametrize("exactly_once", [False, True])
def test_moves_there_and_back_and_there_lose_skip_and_repeat_nothing(exactly_once: bool) -> None:
    estate = settled(exactly_once=exactly_once)
    for target in (WEST, EAST, WEST):
        run = estate.move("switchover", target)
        assert run.phase == "succeeded", run.waiting
        estate.settle()
    estate.drain()
    assert estate.wrong() == []
    written = {region: sum(where == region for where in estate.applications.acked.values()) for region in (EAST, WEST)}
    assert min(written.values()) > 100
    for flow in estate.world.flows:
        assert estate.world.replicators[flow.target].status(connector(flow)).state == "RUNNING"
    captures = [estate.leader(region).coordinator.capture for region in (EAST, WEST)]
    assert any(pair.came_back for capture in captures for pair in capture._alignment.pairs.values())
    for capture in captures:
        seen = capture.snapshot()
        assert capture.lag() == (seen.lag_records, seen.lag_seconds), "reports and status say the same"


def test_what_a_failover_leaves_behind_comes_late_and_nobody_skips_it() -> None:
    estate = settled()
    for target in (WEST, EAST):
        assert estate.move("switchover", target).phase == "succeeded"
        estate.settle()
    estate.replicating = False
    estate.settle(3)
    estate.lose(EAST)
    assert estate.move("failover", WEST, attested=True).phase == "succeeded"
    assert ledger(estate, WEST).state == "open"
    estate.replicating = True
    estate.settle()

    estate.world.clusters[EAST].reachable = True
    behind = {
        tp: len(contents(estate.world, EAST, tp)) - len(contents(estate.world, WEST, estate.world.mirror(EAST, tp)))
        for tp in estate.world.tps()
    }
    assert sum(behind.values()) > 0
    estate.world.clusters[EAST].reachable = False
    estate.replicating = False  # the flow comes back later than the region
    estate.regain(EAST)
    estate.settle(30)
    listed = ledger(estate, EAST)
    assert listed.state == "late"
    assert {(t.topic, t.partition): t.records for t in listed.tails} == {(tp.topic, tp.partition): n for tp, n in behind.items()}
    estate.replicating = True
    estate.settle(30)
    assert ledger(estate, EAST) == msgspec.structs.replace(listed, state="copied")

    assert estate.move("switchover", EAST).phase == "succeeded"
    estate.settle()
    estate.drain()
    # What a group had processed beyond the copies it processes again when they come, late: nothing else is wrong.
    assert [one for one in estate.wrong() if " twice" not in one or "processed" not in one] == []
    assert estate.world.clusters[EAST].acls.allows("User:producer", "write", "topic", "orders")
    assert not estate.world.clusters[WEST].acls.allows("User:producer", "write", "topic", "orders")


def test_an_abort_changes_nothing_but_the_epoch() -> None:
    estate = settled()
    estate.replicating = False  # it will never drain
    estate.begin("switchover", WEST)
    for _ in range(20):
        estate.round()
    estate.leader(WEST).coordinator.mover.ask(AbortAsked("test"))
    assert estate.finish(WEST).phase == "aborted"
    estate.replicating = True
    estate.settle()
    estate.drain()
    assert estate.wrong() == []


def test_what_a_group_has_not_read_of_the_copies_must_still_be_there_among_the_originals() -> None:
    estate = settled()
    assert estate.move("switchover", WEST).phase == "succeeded"
    estate.consuming = {BILLING: 1_000, SHIPPING: 0}  # shipping reads nothing of what is written in west
    estate.settle()
    assert estate.move("switchover", EAST).phase == "succeeded"
    estate.settle()
    originals = estate.world.clusters[WEST].log(TopicPartition("orders", 0))
    originals.trim(originals.end)
    estate.settle(15)
    obstacles = estate.leader(WEST).coordinator.capture.obstacles()
    assert {(one.code, one.where) for one in obstacles} == {("COPIES_DELETED", "west.orders-0")}
    assert all(one.message.startswith("shipping ") for one in obstacles)
    estate.begin("switchover", WEST)
    assert estate.until("waiting").step.name == "preflight"


def test_a_region_that_came_back_shorter_than_its_mirror_is_not_opened_by_a_switchover() -> None:
    estate = settled()
    estate.lose(EAST)
    assert estate.move("failover", WEST, attested=True).phase == "succeeded"
    for tp in estate.world.tps():
        log = estate.world.clusters[EAST].contents[tp.topic].logs[tp.partition]
        log.cut(log.end - 5)
    estate.regain(EAST)
    estate.settle(40)
    assert ledger(estate, EAST).state == "open"
    estate.begin("switchover", EAST)
    run = estate.until("waiting", target=EAST)
    assert run.waiting is not None
    assert (run.step.name, run.waiting.code) == ("record-ends", "LOG_SHORTER")
    assert estate.finish(EAST, AbortAsked("test")).phase == "aborted"
    estate.settle()
    assert (estate.applications.record().region, estate.applications.record().state) == (WEST, "open")
    assert estate.move("failover", EAST, attested=True).phase == "succeeded"


def test_a_connector_that_names_copies_otherwise_is_neither_started_nor_moved_over() -> None:
    estate = settled()
    replicator = estate.world.replicators[WEST]
    name = connector(Flow(EAST, WEST))
    replicator.connectors[name].config["replication.policy.class"] = "org.apache.kafka.connect.mirror.IdentityReplicationPolicy"
    replicator.stop(name)
    estate.settle(30)
    assert replicator.status(name).state == "STOPPED"
    seen = estate.leader(WEST).coordinator.observer.observe()
    found = findings(seen, "switchover", WEST, attested=False)
    assert ("POLICY_DIFFERS", "error") in {(one.code, one.severity) for one in found}


def test_a_group_that_reads_one_topic_of_two_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    estate = settled()
    assert estate.move("switchover", WEST).phase == "succeeded"
    estate.settle()
    for group in (BILLING, SHIPPING):
        estate.world.clusters[WEST].forget_group(group)
    monkeypatch.setattr(estate.world, "read_tps", lambda region: estate.world.tps())  # applications read what is written here only
    estate.settle(80)
    told = {
        (one.message.split()[0], one.where) for one in estate.leader(EAST).coordinator.capture.findings() if one.code == "COPIES_NOT_READ"
    }
    assert told == {(group, f"east.{topic}") for group in ("billing", "shipping") for topic in ("orders", "payments")}


def test_copies_that_nobody_may_read_are_told_of() -> None:
    estate = settled()
    west = estate.world.clusters[WEST]
    west.remove_bindings({b for b in west.bindings() if b.name == "east.orders" and b.principal == CONSUMER})
    found = findings(estate.leader(WEST).coordinator.observer.observe(), "switchover", WEST, attested=False)
    assert [(one.severity, one.message) for one in found if one.code == "READER_NOT_ALLOWED"] == [
        ("warning", "no ACL lets anybody read east.orders in west, which has orders of east")
    ]


# ---------------------------------------------------------------- killed at any act


def small() -> Estate:
    """Return an estate with records of both regions in both, as after a move there and back; small, for there are many runs."""
    estate = Estate(topics={"orders": 1}, policy="default")
    for number in range(40):
        value = f"earlier-{number}".encode()
        estate.world.clusters[WEST].produce(PRODUCER, TopicPartition("orders", 0), value, value)
        estate.applications.acked[value] = WEST
    estate.settle(12)
    return estate


def dying() -> Estate:
    """The same, and east is dead before all was copied."""
    estate = small()
    estate.replicating = False
    estate.settle(2)
    estate.lose(EAST)
    return estate


def acts(kind: MoveKind) -> list[str]:
    estate = small() if kind == "switchover" else dying()
    switch = estate.leader(WEST).switch
    switch.armed = True
    assert estate.move(kind, WEST, attested=kind == "failover").phase == "succeeded"
    return switch.acts


KILLS: list[tuple[MoveKind, int, str]] = [(kind, at, act) for kind in ("switchover", "failover") for at, act in enumerate(acts(kind)) if at]


@pytest.mark.parametrize(("kind", "at"), [one[:2] for one in KILLS], ids=[f"{kind}-{at}-{act}" for kind, at, act in KILLS])
def test_the_mover_may_be_killed_at_any_act(kind: MoveKind, at: int) -> None:
    """Before it or after it, in turn: the loop over identity has both of each."""
    estate = small() if kind == "switchover" else dying()
    switch = estate.leader(WEST).switch
    switch.die_at(at, after=bool(at % 2))
    estate.begin(kind, WEST, attested=kind == "failover")
    assert estate.finish(WEST).phase == "succeeded"
    if kind == "failover":
        estate.replicating = True
        estate.regain(EAST)
        estate.settle(30)
        assert ledger(estate, EAST).state == "copied"
    estate.drain()
    # What a group had processed beyond the copies that a failover found, it processes again when they come.
    assert [one for one in estate.wrong() if kind == "switchover" or "twice" not in one or "processed" not in one] == []
    assert estate.end_state()["record"] == (WEST, "open", 2)
    assert "STOPPED" not in str(estate.end_state()["connectors"])

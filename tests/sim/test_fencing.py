"""What the fence's proofs rest on: a refusal is the new fence's own, and nothing got past it before the target opens."""

from __future__ import annotations

from pathlib import Path

import pytest

from mrc.core.errors import MrcError
from mrc.core.failover.execution import AbortAsked, Run
from mrc.core.model import TopicPartition
from mrc.ports import Binding
from mrc.sim.agents import contents
from mrc.sim.world import EAST, PROBE, PRODUCER, WEST
from tests.sim.estate import RUNBOOKS, Estate, settled

LATE_TP = TopicPartition("orders", 1)
"""Its leader is broker 1."""


def takes_writes(estate: Estate, tp: TopicPartition) -> bool:
    """Whether a producer that knows of no move is acknowledged in the east."""
    try:
        estate.world.clusters[EAST].produce(PRODUCER, tp, b"k", b"stubborn")
    except MrcError:
        return False
    return True


def test_a_refusal_of_an_earlier_fence_is_not_taken_for_one_of_the_new_fence() -> None:
    estate = settled()
    estate.replicating = False
    estate.begin("switchover", WEST)
    estate.until_step("drain")
    estate.lose(EAST)
    estate.leader(WEST).coordinator.mover.ask(AbortAsked("test"))
    assert estate.until("aborted").phase == "aborted"
    estate.world.clusters[EAST].late_s[1] = 30.0  # of the fence's end, and of the next fence
    estate.regain(EAST)
    estate.replicating = True
    estate.settle(30)
    began_s = estate.world.clock.monotonic_s()
    assert estate.move("switchover", WEST).phase == "succeeded"
    acked = []
    while estate.world.clock.monotonic_s() < began_s + 90:
        estate.round()
        acked.append(takes_writes(estate, LATE_TP))
    assert len(acked) > 100
    assert not any(acked)


def kept_from_writing(estate: Estate) -> Binding:
    """An operator's DENY for the probe."""
    deny = Binding("topic", "orders", "literal", PROBE, "write", "deny")
    estate.world.clusters[EAST].add_bindings({deny})
    return deny


def test_a_leader_that_refuses_before_the_fence_keeps_it_from_being_begun() -> None:
    estate = settled()
    deny = kept_from_writing(estate)
    estate.begin("switchover", WEST, patience_s=10.0)
    run = estate.until("waiting")
    assert run.waiting is not None
    assert (run.step.name, run.waiting.code) == ("fence-source", "NOT_VERIFIED")
    assert "orders-0, orders-1, orders-2" in run.waiting.message
    assert "payments" not in run.waiting.message
    assert (estate.applications.record().region, estate.applications.record().state) == (EAST, "open")
    estate.world.clusters[EAST].remove_bindings({deny})
    assert estate.finish(WEST).phase == "succeeded"


def test_a_fence_that_was_not_begun_is_undone_although_leaders_refuse() -> None:
    estate = settled()
    kept_from_writing(estate)
    estate.begin("switchover", WEST)
    estate.until_step("fence-source")
    estate.leader(WEST).coordinator.mover.ask(AbortAsked("test"))
    run = estate.until("aborted", "waiting")
    assert run.phase == "aborted", run.waiting
    assert estate.applications.record().epoch == 1, "nobody had to notice"


def past_the_fence(estate: Estate, *, transaction: int = 0) -> None:
    """Somebody's tool removes a refusal, and a record gets into the source."""
    estate.producing = False
    east = estate.world.clusters[EAST]
    east.acls.bindings = east.acls.bindings - {Binding("topic", "orders", "literal", PRODUCER, "write", "deny")}
    east.produce(PRODUCER, TopicPartition("orders", 0), b"k", b"late", transaction=transaction)


def aborted(estate: Estate) -> Run:
    estate.leader(WEST).coordinator.mover.ask(AbortAsked("test"))
    return estate.until("aborted")


def found_by(estate: Estate, step: str) -> None:
    """The step waits, names the partition of the late record, and the target is not open."""
    run = estate.until("waiting")
    assert run.waiting is not None
    assert (run.step.name, run.waiting.code) == (step, "NOT_VERIFIED")
    assert "orders-0" in run.waiting.message
    assert estate.applications.record().state == "closed"


def test_a_record_that_got_past_the_fence_is_found_while_there_is_a_way_back() -> None:
    estate = settled()
    estate.begin("switchover", WEST)
    estate.until_step("release-groups")
    past_the_fence(estate)
    found_by(estate, "move-positions")
    aborted(estate)
    assert (estate.applications.record().region, estate.applications.record().state) == (EAST, "open")
    estate.settle()
    assert b"late" in contents(estate.world, WEST, TopicPartition("orders", 0)), "the flow copies it after all"
    assert estate.move("switchover", WEST).phase == "succeeded"


def test_a_record_that_got_past_the_fence_after_the_positions_were_moved_keeps_the_target_closed(tmp_path: Path) -> None:
    estate = settled()
    file = tmp_path / "switchover.yaml"
    pause = "  - {name: look, action: pause, parameters: {seconds: 3}, timeout_s: 10, retries: 0}\n"
    before = "  - name: open-target\n"
    file.write_text((RUNBOOKS / "switchover.yaml").read_text().replace(before, pause + before))
    estate.begin("switchover", WEST, runbook=file)
    assert estate.until_step("look").evidence["move-positions"]
    past_the_fence(estate)
    found_by(estate, "open-target")


@pytest.mark.parametrize("commit", [True, False], ids=["committed", "broken-off"])
def test_a_transaction_that_got_past_the_fence_keeps_the_target_closed(commit: bool) -> None:
    estate = settled()
    estate.begin("switchover", WEST)
    estate.until_step("release-groups")
    east = estate.world.clusters[EAST]
    transaction = east.begin()
    past_the_fence(estate, transaction=transaction)
    run = estate.until("waiting")
    assert run.waiting is not None
    assert (run.step.name, run.waiting.code) == ("move-positions", "OPEN_TRANSACTION")
    assert "orders-0" in run.waiting.message
    east.finish(transaction, commit=commit)
    aborted(estate)
    assert estate.move("switchover", WEST).phase == "succeeded"
    assert (b"late" in contents(estate.world, WEST, TopicPartition("orders", 0))) == commit

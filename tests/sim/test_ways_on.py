"""What a runbook says about failures, approvals and conditions, in the production mover and service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from mrc.agent.leadership import AgentNode, Leadership
from mrc.agent.service import AgentService
from mrc.config.runbook import load_runbook
from mrc.core.errors import MrcError
from mrc.core.failover.execution import AbortAsked, Approved
from mrc.core.failover.runbook import MoveKind
from mrc.core.model import Region
from mrc.sim.world import EAST, WEST
from tests.sim.estate import RUNBOOKS, Estate, settled


def written(folder: Path, kind: MoveKind, **changed: dict[str, Any]) -> Path:
    """The shipped runbook with some keys of some steps changed."""
    book = yaml.safe_load((RUNBOOKS / f"{kind}.yaml").read_text())
    for step in book["steps"]:
        step.update(changed.get(step["name"].replace("-", "_"), {}))
    path = folder / f"{kind}.yaml"
    path.write_text(yaml.safe_dump(book, sort_keys=False))
    return path


def service(estate: Estate, region: Region, folder: Path) -> AgentService:
    """The answers of the agent that leads in a region, with runbooks as its wiring reads them."""
    agent = estate.leader(region)
    me = AgentNode(agent.name, f"{agent.name}:0", "sim")
    peers = {name: Leadership(agent.tree, name, me) for name in (EAST, WEST)}

    def read(replication_group: str, kind: str) -> Any:
        book, digest = load_runbook(folder / f"{kind}.yaml")
        return agent.coordinator.as_seen(book), digest

    return AgentService(me, region, agent.leadership, peers, {"orders": agent.coordinator}, read)


def test_a_move_that_cannot_drain_opens_the_source_again_by_itself(tmp_path: Path) -> None:
    estate = settled()
    estate.replicating = False
    estate.settle(3)
    book = written(tmp_path, "switchover", drain={"timeout_s": 2, "retries": 0, "on_failure": "undo"})
    estate.begin("switchover", WEST, runbook=book)
    assert estate.until("aborted", "waiting").phase == "aborted"
    record = estate.applications.record()
    assert (record.region, record.state) == (EAST, "open")
    estate.replicating = True
    estate.settle()
    assert estate.move("switchover", WEST).phase == "succeeded"
    estate.settle()
    estate.drain()
    assert estate.wrong() == []


def test_a_move_goes_on_without_a_canary_whose_groups_do_not_come(tmp_path: Path) -> None:
    estate = settled()
    book = written(tmp_path, "switchover", canary={"timeout_s": 2, "retries": 0, "on_failure": "go-on"})
    estate.begin("switchover", WEST, runbook=book)
    estate.until("doing")
    estate.world.clusters[WEST].ensure_topic = _refuse  # type: ignore[method-assign] # the canary's topic cannot be made
    run = estate.until("succeeded", "waiting")
    assert run.phase == "succeeded"
    assert run.evidence["canary"].startswith("the move went on without it: AUTHORIZATION_FAILED")


def _refuse(name: str, *, compacted: bool, partitions: int = 1) -> None:
    raise MrcError("AUTHORIZATION_FAILED", "may not make topics", where=name)


def test_a_move_that_nobody_approves_in_time_is_undone_by_whoever_leads(tmp_path: Path) -> None:
    estate = settled()
    book = written(tmp_path, "switchover", open_target={"approval": {"timeout_s": 30}})
    estate.begin("switchover", WEST, runbook=book)
    waiting = estate.until("waiting")
    assert waiting.waiting is not None
    asked_ms = waiting.waiting.since_ms
    first = estate.leader(WEST)
    first.alive = False
    first.tree.expire()
    run = estate.until("aborted")
    assert 30_000 < run.ended_at_ms - asked_ms < 45_000
    record = estate.applications.record()
    assert (record.region, record.state) == (EAST, "open")
    entries = [entry.event for entry in estate.leader(WEST).coordinator.estate.store.entries(run.plan.id)]
    assert [(event.actor, event.reason) for event in entries if isinstance(event, AbortAsked)] == [
        ("mrc", "nobody has approved step open-target within 30 s")
    ]


def test_an_approval_in_time_is_not_undone_afterwards(tmp_path: Path) -> None:
    estate = settled()
    estate.begin("switchover", WEST, runbook=written(tmp_path, "switchover", fence_source={"approval": {"by": "another", "timeout_s": 30}}))
    estate.until("waiting")
    mover = estate.leader(WEST).coordinator.mover
    with pytest.raises(MrcError, match="somebody else than test") as refused:
        mover.ask(Approved("test"))
    assert refused.value.code == "APPROVE_REFUSED"
    mover.ask(Approved("another"))
    assert estate.until("succeeded", "aborted", "waiting").phase == "succeeded"


@pytest.mark.parametrize(("only_if", "there"), [("source-reachable", False), ("source-unreachable", True)])
def test_a_plan_leaves_out_what_was_not_seen_and_the_move_does_what_the_plan_says(tmp_path: Path, only_if: str, there: bool) -> None:
    estate = settled()
    written(tmp_path, "failover", canary={"only_if": only_if})
    estate.lose(EAST)
    estate.settle()
    answers = service(estate, WEST, tmp_path)
    view = answers.plan("orders", "failover", WEST, attested=True, allow_data_loss=False)
    assert ("canary" in [step.name for step in view.steps]) is there
    assert ("STEP_LEFT_OUT" in [finding.code for finding in view.findings]) is not there
    answers.start("orders", "failover", WEST, "token", "somebody", "", attested=True, allow_data_loss=False)
    run = estate.finish(WEST)
    assert run.phase == "succeeded"
    assert [step.name for step in run.plan.steps] == [step.name for step in view.steps]
    assert (run.plan.left_out == ()) is there

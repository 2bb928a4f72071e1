"""Steps of the operator's own, in the production mover: each does what it says, fails as it says, and may be done twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from mrc.core.failover.execution import ENDED, AbortAsked
from mrc.sim.world import EAST, WEST
from tests.sim.estate import RUNBOOKS, Estate


def begun(tmp_path: Path, step: str) -> Estate:
    """A switchover under way whose first step is the given one."""
    estate = Estate()
    estate.settle()
    file = tmp_path / "switchover.yaml"
    file.write_text((RUNBOOKS / "switchover.yaml").read_text().replace("steps:\n", f"steps:\n  - {step}\n", 1))
    estate.begin("switchover", WEST, runbook=file)
    return estate


def test_a_request_carries_the_facts_of_the_move(tmp_path: Path) -> None:
    estate = begun(tmp_path, "{name: weights, action: http, parameters: {method: PUT, url: 'http://lb/weights'}}")
    run = estate.finish(WEST)
    assert run.phase == "succeeded"
    ((method, url, facts),) = estate.world.hook.requests
    assert (method, url) == ("PUT", "http://lb/weights")
    assert facts == {"execution": run.plan.id, "kind": "switchover", "source": EAST, "target": WEST, "step": "weights"}
    assert run.evidence["weights"].startswith("http://lb/weights has taken the request")


def test_a_request_that_is_refused_is_tried_again_and_then_a_person_is_asked(tmp_path: Path) -> None:
    estate = begun(tmp_path, "{name: weights, action: http, parameters: {method: PUT, url: 'http://lb/weights'}, retries: 1}")
    estate.world.hook.statuses["http://lb/weights"] = 500
    run = estate.until("waiting")
    assert run.waiting is not None
    assert (run.waiting.step, run.waiting.code) == ("weights", "HOOK_FAILED")
    assert len(estate.world.hook.requests) == 2
    estate.world.hook.statuses.clear()
    assert estate.finish(WEST).phase == "succeeded"


def test_a_command_is_waited_for_until_it_says_yes(tmp_path: Path) -> None:
    estate = begun(tmp_path, "{name: quiet, action: wait-for, parameters: {argv: [./quiet]}, timeout_s: 20, retries: 0}")
    estate.world.hook.failing = 7
    run = estate.finish(WEST)
    assert run.phase == "succeeded"
    began_ms, ended_ms = run.times["quiet"]
    assert 7_000 <= ended_ms - began_ms < 20_000
    assert [facts["step"] for facts in estate.world.hook.runs] == ["quiet"]


def test_a_command_that_never_says_yes_is_waited_for_as_long_as_the_step_may_take(tmp_path: Path) -> None:
    estate = begun(tmp_path, "{name: quiet, action: wait-for, parameters: {argv: [./quiet]}, timeout_s: 5, retries: 0}")
    estate.world.hook.failing = 1_000
    began_ms = estate.world.clock.now_ms()
    run = estate.until("waiting")
    assert run.waiting is not None
    assert run.waiting.code == "EFFECT_TIMED_OUT"
    assert "the last time: exit code 1: not yet (./quiet)" in run.waiting.message
    assert estate.world.clock.now_ms() - began_ms < 8_000


def test_a_pause_lasts_as_long_as_it_says(tmp_path: Path) -> None:
    estate = begun(tmp_path, "{name: breathe, action: pause, parameters: {seconds: 12}}")
    run = estate.finish(WEST)
    began_ms, ended_ms = run.times["breathe"]
    assert 12_000 <= ended_ms - began_ms < 14_000


@pytest.mark.parametrize(
    "step",
    [
        "{name: own, action: pause, parameters: {seconds: 600}, timeout_s: 900}",
        "{name: own, action: wait-for, parameters: {argv: [./quiet]}, timeout_s: 900}",
    ],
)
def test_an_abort_ends_a_pause_and_a_wait_at_once(tmp_path: Path, step: str) -> None:
    estate = begun(tmp_path, step)
    estate.world.hook.failing = 10_000
    mover = estate.leader(WEST).coordinator.mover
    clock = estate.world.clock
    others, asked_ms = clock.meanwhile, clock.now_ms() + 30_000
    asked = False

    def meanwhile() -> None:
        nonlocal asked
        others()
        if not asked and clock.now_ms() >= asked_ms:
            asked = True
            mover.ask(AbortAsked("test"))

    clock.meanwhile = meanwhile
    assert estate.finish(WEST).phase == "aborted"
    assert clock.now_ms() - asked_ms < 5_000


@pytest.mark.parametrize("told", ["argv: [./tell]", "url: 'http://chat/hook'"])
def test_somebody_is_told_and_told_again_where_that_fails(tmp_path: Path, told: str) -> None:
    estate = begun(tmp_path, f"{{name: tell, action: notify, parameters: {{{told}}}, timeout_s: 5, retries: 2}}")
    estate.world.hook.failing = 2
    run = estate.finish(WEST)
    assert (run.phase, run.evidence["tell"]) == ("succeeded", "told")
    said = [*estate.world.hook.runs, *(facts for _, _, facts in estate.world.hook.requests)]
    assert [facts["step"] for facts in said] == ["tell"]


@pytest.mark.parametrize("told", ["argv: [./tell]", "url: 'http://chat/hook'"])
def test_that_nobody_could_be_told_stops_nothing_and_is_noted(tmp_path: Path, told: str) -> None:
    estate = begun(tmp_path, f"{{name: tell, action: notify, parameters: {{{told}}}, timeout_s: 5, retries: 1}}")
    estate.world.hook.failing = 1_000
    estate.world.hook.statuses["http://chat/hook"] = 0
    while (run := estate.run_of(WEST)) is None or run.phase not in ENDED:
        estate.round()
        assert run is None or run.phase != "waiting"
    assert run.phase == "succeeded"
    assert run.evidence["tell"].startswith("nobody was told: ")

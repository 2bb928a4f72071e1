"""What follows a step's last failure, and who may approve what until when: in the machine, and the same on replay."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from mrc.core.errors import MrcError
from mrc.core.failover.actions import ACTIONS
from mrc.core.failover.execution import (
    AbortAsked,
    Approved,
    Did,
    Effect,
    Entry,
    Event,
    Failed,
    Resumed,
    Run,
    Started,
    Undid,
    Undo,
    Verified,
    handle,
    replay,
)
from mrc.core.failover.runbook import Approval, Runbook, RunbookStep
from tests.core.test_runbooks import plan, runbook

STARTER = "somebody"
ORDER = [step.name for step in plan(runbook()).steps]
STEP_MS = 1_000


class Walk:
    """An execution whose effects succeed, but for those of the steps that are told to fail."""

    def __init__(self, book: Runbook | None = None, /, **changed: dict[str, Any]) -> None:
        self.now_ms = 10_000
        self.plan = plan(book or runbook("switchover", {name.replace("_", "-"): fields for name, fields in changed.items()}))
        self.run = Run(self.plan)
        self.effects: tuple[Effect, ...] = ()
        self.entries: list[Entry] = []
        self.failing: set[str] = set()
        self.undone: list[str] = []
        self.accept(Started())

    def accept(self, event: Event) -> None:
        self.now_ms += STEP_MS
        self.run, self.effects = handle(self.run, event, self.now_ms)
        self.entries.append(Entry(number=len(self.entries), at_ms=self.now_ms, agent="a", term=1, event=event))

    def walk(self) -> Run:
        """Go on until nothing more comes by itself; replaying what was accepted gives the same."""
        while self.effects:
            (effect,) = self.effects
            name, attempt = effect.step.name, effect.attempt
            if isinstance(effect, Undo):
                self.undone.append(name)
                self.accept(Undid(name, attempt))
            elif name in self.failing:
                self.accept(Failed(name, attempt, "HOOK_FAILED", "no"))
            else:
                self.accept(Did(name, attempt) if self.run.phase == "doing" else Verified(name, attempt, "yes"))
        assert replay(self.plan, tuple(self.entries)) == self.run
        return self.run

    def tries(self, step: str) -> int:
        return sum(isinstance(entry.event, Failed) and entry.event.step == step for entry in self.entries)


def refused(walk: Walk, actor: str) -> str:
    before = walk.run
    with pytest.raises(MrcError) as caught:
        handle(walk.run, Approved(actor), walk.now_ms + STEP_MS)
    assert caught.value.code == "APPROVE_REFUSED"
    assert walk.run == before
    return caught.value.message


def test_a_person_is_asked_unless_the_step_says_otherwise() -> None:
    walk = Walk(drain={"retries": 1})
    walk.failing = {"drain"}
    run = walk.walk()
    assert run.waiting is not None
    assert (run.phase, run.waiting.step, run.waiting.code, walk.tries("drain")) == ("waiting", "drain", "HOOK_FAILED", 2)


@pytest.mark.parametrize("step", ORDER[: ORDER.index("open-target")])
def test_the_last_failure_of_a_step_that_undoes_ends_the_move_as_an_abort_does(step: str) -> None:
    walk = Walk(**{step: {"on_failure": "undo", "retries": 2}})
    walk.failing = {step}
    run = walk.walk()
    assert (run.phase, walk.tries(step)) == ("aborted", 3)
    assert walk.undone == [name for name in reversed(ORDER[: ORDER.index(step) + 1]) if ACTIONS[name].undo]
    if not ACTIONS[step].undo:
        assert run.evidence[step] == "HOOK_FAILED: no"


def test_a_plan_that_nobody_has_linted_undoes_nothing_behind_the_point_of_no_return() -> None:
    walk = Walk(canary={"retries": 0})
    steps = tuple(walk.plan.steps)
    canary = next(step for step in steps if step.name == "canary")
    walk.plan = msgspec.structs.replace(
        walk.plan, steps=tuple(msgspec.structs.replace(step, on_failure="undo") if step is canary else step for step in steps)
    )
    walk.run = msgspec.structs.replace(walk.run, plan=walk.plan)
    walk.failing = {"canary"}
    assert walk.walk().phase == "waiting"


@pytest.mark.parametrize("step", ["route", "reverse-flow", "canary"])
def test_a_move_goes_on_without_a_step_that_may_be_passed_over_and_says_so(step: str) -> None:
    walk = Walk(**{step: {"on_failure": "go-on", "retries": 1}})
    walk.failing = {step}
    run = walk.walk()
    assert (run.phase, walk.tries(step)) == ("succeeded", 2)
    assert run.evidence[step] == "the move went on without it: HOOK_FAILED: no"
    assert not ACTIONS[step].gives & run.given
    began_ms, ended_ms = run.times[step]
    assert 0 < began_ms < ended_ms


def test_an_approval_of_a_step_behind_one_that_was_passed_over_is_asked_for() -> None:
    walk = Walk(route={"on_failure": "go-on", "retries": 0, "approval_rule": True}, reverse_flow={"approval_rule": True})
    walk.failing = {"route"}
    walk.walk()
    walk.accept(Approved("b"))
    run = walk.walk()
    assert run.waiting is not None
    assert (run.waiting.step, run.waiting.code) == ("reverse-flow", "")


# ---------------------------------------------------------------- approvals


def test_anybody_may_approve_where_nothing_else_is_said() -> None:
    walk = Walk(drain={"approval_rule": True})
    run = walk.walk()
    assert run.waiting is not None
    assert run.waiting.message == "approval of step drain"
    walk.accept(Approved(STARTER))
    assert walk.walk().phase == "succeeded"


def test_whoever_began_the_move_may_not_approve_where_another_is_asked_for() -> None:
    walk = Walk(open_target={"approval_rule": Approval(by="another")})
    run = walk.walk()
    assert run.waiting is not None
    assert run.waiting.message == "approval of step open-target by somebody else than somebody"
    assert "somebody else than somebody" in refused(walk, STARTER)
    walk.accept(Approved("another"))
    assert walk.walk().phase == "succeeded"


def test_after_a_failure_whoever_began_the_move_may_ask_for_another_round() -> None:
    walk = Walk(drain={"approval_rule": Approval(by="another"), "retries": 0})
    walk.walk()
    walk.failing = {"drain"}
    walk.accept(Approved("another"))
    assert walk.walk().phase == "waiting"
    walk.failing = set()
    walk.accept(Approved(STARTER))
    assert walk.walk().phase == "succeeded"


@pytest.mark.parametrize(("waited_ms", "late"), [(60_000, False), (60_001, True)])
def test_an_approval_holds_until_its_time_is_over(waited_ms: int, late: bool) -> None:
    walk = Walk(drain={"approval_rule": Approval(timeout_s=60)})
    run = walk.walk()
    assert run.waiting is not None
    assert run.waiting.message == "approval of step drain within 60 s, else the move is undone"
    walk.now_ms += waited_ms - STEP_MS
    if late:
        assert refused(walk, "another") == "it had to be approved within 60 s; the move is undone"
        walk.accept(AbortAsked("mrc"))
        assert walk.walk().phase == "aborted"
    else:
        walk.accept(Approved("another"))
        assert walk.walk().phase == "succeeded"


# ---------------------------------------------------------------- a fence


def fenced(*more: RunbookStep) -> Walk:
    """A fence that is in force, and waits for a person; ``more`` comes behind its end."""
    walk = Walk(runbook("fence", {"reopen-source": {"approval_rule": True}}, *more))
    run = walk.walk()
    assert run.waiting is not None
    assert (run.phase, run.waiting.step, run.waiting.code) == ("waiting", "reopen-source", "")
    return walk


def test_the_proof_of_a_fence_is_not_asked_for_once_its_end_has_begun() -> None:
    walk = fenced()
    walk.accept(Resumed())
    assert (walk.run.phase, walk.effects) == ("waiting", ())
    walk.accept(Approved("another"))
    for _ in range(2):  # the one who leads dies after the region was opened and before that was noted; and once more while it is verified
        assert [(type(effect).__name__, effect.step.name) for effect in walk.effects] == [("Do", "reopen-source")]
        walk.accept(Resumed())
    walk.accept(Did("reopen-source", walk.run.attempt))
    walk.accept(Resumed())
    assert [(type(effect).__name__, effect.step.name) for effect in walk.effects] == [("Verify", "reopen-source")]
    run = walk.walk()
    assert run.phase == "succeeded"
    assert "source-settled" not in run.given


def test_a_fence_can_be_aborted_at_any_time_also_while_it_is_being_ended() -> None:
    walk = fenced()
    walk.accept(Approved("another"))
    walk.accept(AbortAsked("another"))
    assert walk.walk().phase == "aborted"
    assert walk.undone == ["fence-source"]


def test_what_an_operator_does_behind_the_end_of_a_fence_is_resumed_without_its_proof() -> None:
    told = RunbookStep(name="tell", action="notify", parameters={"argv": ("page",)})
    walk = fenced(told)
    walk.accept(Approved("another"))
    walk.accept(Did("reopen-source", walk.run.attempt))
    walk.accept(Verified("reopen-source", walk.run.attempt))
    walk.accept(Resumed())
    assert [(type(effect).__name__, effect.step.name) for effect in walk.effects] == [("Do", "tell")]

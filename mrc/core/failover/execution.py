"""The mover as a value machine: ``handle(state, event, now) -> (state, entries, effects)``.

Theory of operation. An execution walks its plan's steps in order. A step is *done* by one effect (`Do`) and *verified* by
another (`Verify`) from fresh observation; a failure is retried a bounded number of times, then a person is asked, or what the
step's ``on_failure`` says is done. Until a step that opens a region has been begun, an abort undoes the finished steps backwards.
Effects may be carried out more than once: whoever resumes an execution repeats the effect whose result is not in the journal.

Every accepted event becomes one journal entry, before its effects are handed out; replaying the entries through
`handle` gives the state. After a resume every proof that expires is proved again (`Action.proof`) before the walk goes on.

Every transition is a row of `TRANSITIONS`; an event that has no row for the state's phase, or that speaks of another step
or try, is an error and changes nothing. Same state, same event, same time: same result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import msgspec

from mrc.core.errors import InvariantViolation, MrcError
from mrc.core.failover.actions import ACTIONS
from mrc.core.failover.plan import Plan, PlanStep
from mrc.core.failover.runbook import approval_of
from mrc.core.model import Value, Written

# ---------------------------------------------------------------- events (and, with a header, journal entries)


class Started(Written, frozen=True, tag="started"):
    """The plan was accepted."""


class Did(Written, frozen=True, tag="did"):
    """The step's effect was carried out; ``facts`` are small values that later steps and people use."""

    step: str
    attempt: int
    facts: dict[str, str] = {}


class Verified(Written, frozen=True, tag="verified"):
    """The step's effect was seen from outside."""

    step: str
    attempt: int
    evidence: str = ""


class Failed(Written, frozen=True, tag="failed"):
    """The effect (do, verify or undo) failed with a code of `mrc.core.errors.CODES`."""

    step: str
    attempt: int
    code: str
    message: str


class Undid(Written, frozen=True, tag="undid"):
    """The step was undone."""

    step: str
    attempt: int
    evidence: str = ""


class Approved(Written, frozen=True, tag="approved"):
    """A person approved what the execution waits for (a step's beginning, or another round of tries)."""

    actor: str
    reason: str = ""


class AbortAsked(Written, frozen=True, tag="abort-asked"):
    """A person asked to undo and end."""

    actor: str
    reason: str = ""


class Resumed(Written, frozen=True, tag="resumed"):
    """Another term goes on with the execution."""


class Skipped(Written, frozen=True, tag="skipped"):
    """A person asked to go on without the step that waits: one that nothing later needs (`Action.skipping`)."""

    actor: str
    reason: str = ""


class Superseded(Written, frozen=True, tag="superseded"):
    """A person began the failover ``by`` in this execution's place; what was done stays done, and nothing is undone."""

    actor: str
    by: str


Event = Started | Did | Verified | Failed | Undid | Approved | AbortAsked | Resumed | Skipped | Superseded


class Entry(Written, frozen=True):
    """One journal entry: an accepted event, and who accepted it when."""

    number: int
    at_ms: int
    agent: str
    term: int
    event: Event
    version: Literal[1] = 1


# ---------------------------------------------------------------- effects


class Do(Value, frozen=True, tag=True):
    """Carry the step out. It may have been carried out before, wholly or in part."""

    step: PlanStep
    attempt: int


class Verify(Value, frozen=True, tag=True):
    """See from outside whether the step's effect holds."""

    step: PlanStep
    attempt: int


class Undo(Value, frozen=True, tag=True):
    """Undo the step and see that it is undone."""

    step: PlanStep
    attempt: int


Effect = Do | Verify | Undo

# ---------------------------------------------------------------- state

Phase = Literal["new", "doing", "verifying", "proving", "waiting", "undoing", "succeeded", "aborted", "superseded"]
ENDED: frozenset[Phase] = frozenset({"succeeded", "aborted", "superseded"})
_ROUND = 100
"""Attempts are numbered round * _ROUND + try, so that a late result of an earlier round is never taken for a newer one."""


class Waiting(Value, frozen=True):
    """What a waiting execution asks a person: approval of a step (``code`` empty, ``since_ms`` set), or what to do about a failure."""

    step: str
    code: str
    message: str
    back_to: Phase
    since_ms: int = 0


class Run(Value, frozen=True):
    """The state of one execution. Replayed from the journal, never stored.

    Attributes:
        phase: see `TRANSITIONS`.
        at: index of the current step; ``len(plan.steps)`` when all are done.
        attempt: number of the current try; grows by one with each, by a round with each approval or resume.
        given: facts given by verified steps.
        facts: small values from `Did`, by name.
        proving: proofs that are still to be repeated before the walk goes on, indexes of steps.
        opened: the point of no return was begun.
        approved: the current step's beginning has been approved.
        evidence: last evidence per step name.
        times: per step name, when it began and ended (0: not yet), milliseconds.
    """

    plan: Plan
    phase: Phase = "new"
    at: int = 0
    attempt: int = 0
    given: frozenset[str] = frozenset()
    facts: Mapping[str, str] = {}
    proving: tuple[int, ...] = ()
    back_to: Phase = "doing"
    waiting: Waiting | None = None
    opened: bool = False
    approved: bool = False
    evidence: Mapping[str, str] = {}
    times: Mapping[str, tuple[int, int]] = {}
    started_at_ms: int = 0
    ended_at_ms: int = 0
    number: int = 0

    @property
    def step(self) -> PlanStep:
        """The step that the next result must speak of."""
        if self.phase == "proving":
            return self.plan.steps[self.proving[0]]
        return self.plan.steps[self.at]

    @property
    def abortable(self) -> bool:
        """Whether an abort would be accepted."""
        return self.phase not in ENDED and self.phase != "undoing" and not self.opened


Outcome = tuple[Run, tuple[Effect, ...]]
_Handler = Callable[[Run, Event, int], Outcome]


def handle(run: Run, event: Event, now_ms: int) -> Outcome:
    """Return the state after ``event`` and the effects to hand out once the event's entry is in the journal.

    Raises:
        MrcError: ``APPROVE_REFUSED``, ``ABORT_REFUSED`` or ``SKIP_REFUSED`` for a person's event that has no place now.
        InvariantViolation: for any other event that `TRANSITIONS` does not allow. The state is unchanged in both cases.
    """
    handler = TRANSITIONS.get((run.phase, type(event)))
    if handler is None:
        if isinstance(event, Approved):
            raise MrcError("APPROVE_REFUSED", f"the execution is {run.phase}; nothing waits for approval", where=run.plan.id)
        if isinstance(event, AbortAsked):
            raise MrcError("ABORT_REFUSED", f"the execution is {run.phase}", where=run.plan.id)
        if isinstance(event, Skipped):
            raise MrcError("SKIP_REFUSED", f"the execution is {run.phase}; only a step that waits can be skipped", where=run.plan.id)
        raise InvariantViolation(f"{type(event).__name__} has no place while {run.phase}", where=run.plan.id)
    if isinstance(event, Did | Verified | Failed | Undid) and (event.step, event.attempt) != (run.step.name, run.attempt):
        raise InvariantViolation(
            f"{type(event).__name__} speaks of {event.step}/{event.attempt}, expected {run.step.name}/{run.attempt}", where=run.plan.id
        )
    after, effects = handler(run, event, now_ms)
    after = msgspec.structs.replace(after, number=run.number + 1)
    _check(after)
    return after, effects


def replay(plan: Plan, entries: tuple[Entry, ...]) -> Run:
    """Return the state after a journal. Raises `InvariantViolation` for one that this machine could not have written."""
    run = Run(plan)
    for entry in entries:
        run, _ = handle(run, entry.event, entry.at_ms)
    return run


def _check(run: Run) -> None:
    """Raise `InvariantViolation` unless what must hold after every transition holds."""
    if run.phase in ("doing", "verifying") and not _needs(run, run.plan.steps[run.at]) <= run.given:
        raise InvariantViolation(f"step {run.step.name} began without {_needs(run, run.step) - run.given}", where=run.plan.id)
    if run.phase == "aborted" and run.opened:
        raise InvariantViolation("aborted after the point of no return", where=run.plan.id)
    if run.phase == "proving" and not run.proving:
        raise InvariantViolation("proving nothing", where=run.plan.id)


def _needs(run: Run, step: PlanStep) -> frozenset[str]:
    return ACTIONS[step.action].needs[run.plan.kind]


# ---------------------------------------------------------------- transitions


def _start(run: Run, event: Event, now_ms: int) -> Outcome:
    return _begin(msgspec.structs.replace(run, started_at_ms=now_ms), now_ms)


def _begin(run: Run, now_ms: int) -> Outcome:
    """Begin the step at ``run.at``, or end, or ask for its approval."""
    if run.at == len(run.plan.steps):
        return msgspec.structs.replace(run, phase="succeeded", ended_at_ms=now_ms), ()
    step = run.plan.steps[run.at]
    asked = approval_of(step.approval_rule)
    if asked is not None and not run.approved:
        waiting = Waiting(step.name, "", f"approval of step {step.name}{asked.asks(run.plan.actor)}", "doing", now_ms)
        return msgspec.structs.replace(run, phase="waiting", waiting=waiting), ()
    attempt = _next_round(run)
    began = run.times.get(step.name, (now_ms, 0))[0]
    after = msgspec.structs.replace(
        run,
        phase="doing",
        attempt=attempt,
        opened=run.opened or ACTIONS[step.action].opens,
        times={**run.times, step.name: (began, 0)},
    )
    return after, (Do(step, attempt),)


def _did(run: Run, event: Event, now_ms: int) -> Outcome:
    assert isinstance(event, Did)  # noqa: S101 - narrows for mypy; the table guarantees it
    after = msgspec.structs.replace(run, phase="verifying", facts={**run.facts, **event.facts})
    return after, (Verify(run.step, run.attempt),)


def _verified(run: Run, event: Event, now_ms: int) -> Outcome:
    assert isinstance(event, Verified)  # noqa: S101
    step = run.step
    began = run.times[step.name][0]
    after = msgspec.structs.replace(
        run,
        given=run.given - ACTIONS[step.action].takes | ACTIONS[step.action].gives,
        evidence={**run.evidence, step.name: event.evidence},
        times={**run.times, step.name: (began, now_ms)},
        at=run.at + 1,
        approved=False,
    )
    return _begin(after, now_ms)


def _failed(run: Run, event: Event, now_ms: int) -> Outcome:
    """Try again from the step's beginning (a new proof needs a new effect); after the last try do what the step says."""
    assert isinstance(event, Failed)  # noqa: S101
    step, said = run.step, f"{event.code}: {event.message}"
    after = msgspec.structs.replace(run, evidence={**run.evidence, step.name: said})
    if run.attempt % _ROUND < step.retries:
        again = msgspec.structs.replace(after, phase="doing", attempt=run.attempt + 1)
        return again, (Do(step, again.attempt),)
    if step.on_failure == "undo" and not run.opened:
        return _abort(after, event, now_ms)
    if step.on_failure == "go-on":
        passed = msgspec.structs.replace(
            run,
            evidence={**run.evidence, step.name: f"the move went on without it: {said}"},
            times={**run.times, step.name: (run.times[step.name][0], now_ms)},
            at=run.at + 1,
            approved=False,
        )
        return _begin(passed, now_ms)
    waiting = Waiting(step.name, event.code, event.message, "doing")
    return msgspec.structs.replace(after, phase="waiting", waiting=waiting), ()


def _proved(run: Run, event: Event, now_ms: int) -> Outcome:
    assert isinstance(event, Verified)  # noqa: S101
    evidence = {**run.evidence, run.step.name: event.evidence}
    return _prove_next(msgspec.structs.replace(run, proving=run.proving[1:], evidence=evidence), now_ms)


def _not_proved(run: Run, event: Event, now_ms: int) -> Outcome:
    """The new term re-asserts: the effect is carried out again, then proved again."""
    assert isinstance(event, Failed)  # noqa: S101
    evidence = {**run.evidence, run.step.name: f"{event.code}: {event.message}"}
    if run.attempt % _ROUND < run.step.retries:
        again = msgspec.structs.replace(run, attempt=run.attempt + 1, evidence=evidence)
        return again, (Do(run.step, again.attempt),)
    waiting = Waiting(run.step.name, event.code, event.message, "proving")
    return msgspec.structs.replace(run, phase="waiting", waiting=waiting, evidence=evidence), ()


def _reasserted(run: Run, event: Event, now_ms: int) -> Outcome:
    return run, (Verify(run.step, run.attempt),)


def _prove_next(run: Run, now_ms: int) -> Outcome:
    if not run.proving:
        return _go_on(run, now_ms)
    after = msgspec.structs.replace(run, phase="proving", attempt=_next_round(run))
    return after, (Verify(after.step, after.attempt),)


def _go_on(run: Run, now_ms: int) -> Outcome:
    """Go on where the journal ends: repeat the effect whose result is not in it."""
    if run.back_to == "verifying":
        after = msgspec.structs.replace(run, phase="verifying", attempt=_next_round(run))
        return after, (Verify(run.plan.steps[run.at], after.attempt),)
    return _begin(run, now_ms)


def _resume(run: Run, event: Event, now_ms: int) -> Outcome:
    """Prove again what was proved, then go on."""
    back_to: Phase = run.back_to if run.phase == "proving" else run.phase
    # Once the target is open the source's proofs decide nothing any more, and a source that has died since must not stop the rest.
    steps = () if "target-open" in run.given else run.plan.steps[: run.at]
    holds = run.given - ACTIONS[run.plan.steps[run.at].action].takes
    proofs = tuple(index for index, step in enumerate(steps) if ACTIONS[step.action].proof and ACTIONS[step.action].gives <= holds)
    return _prove_next(msgspec.structs.replace(run, back_to=back_to, proving=proofs), now_ms)


def _resume_waiting(run: Run, event: Event, now_ms: int) -> Outcome:
    return run, ()


def _approve(run: Run, event: Event, now_ms: int) -> Outcome:
    """Go on: begin the approved step, or give the failed one another round of tries; proofs are repeated first."""
    if run.waiting is None:
        raise InvariantViolation("waiting for nothing", where=run.plan.id)
    asked = None if run.waiting.code else approval_of(run.step.approval_rule)
    if asked is not None and isinstance(event, Approved):
        why = asked.refusal(event.actor, run.plan.actor, now_ms - run.waiting.since_ms)
        if why:
            raise MrcError("APPROVE_REFUSED", why, where=f"step {run.step.name}")
    if run.waiting.back_to == "undoing":
        return _undo_next(msgspec.structs.replace(run, waiting=None), now_ms)
    after = msgspec.structs.replace(run, waiting=None, approved=True, phase="doing", back_to="doing")
    return _resume(after, event, now_ms)


def _abort(run: Run, event: Event, now_ms: int) -> Outcome:
    if run.opened:
        raise MrcError("ABORT_REFUSED", "the target has been opened: let it finish, then move back with a switchover", where=run.plan.id)
    # The current step counts as done: its effect may have been carried out, wholly or in part.
    at = run.at if run.phase != "new" else -1
    return _undo_next(msgspec.structs.replace(run, phase="undoing", at=at, proving=(), waiting=None), now_ms)


def _skip(run: Run, event: Event, now_ms: int) -> Outcome:
    """Go on behind the step that waits; its facts are not given, so nothing that needs them can begin."""
    assert isinstance(event, Skipped)  # noqa: S101
    step = run.step
    needed = frozenset().union(*(_needs(run, later) for later in run.plan.steps[run.at + 1 :])) & ACTIONS[step.action].gives
    if run.waiting is None or run.waiting.back_to != "doing" or not ACTIONS[step.action].skipping or needed:
        raise MrcError("SKIP_REFUSED", f"the move cannot do without step {step.name}", where=run.plan.id)
    began = run.times.get(step.name, (now_ms, 0))[0]
    after = msgspec.structs.replace(
        run,
        evidence={**run.evidence, step.name: f"skipped: {ACTIONS[step.action].skipping}"},
        times={**run.times, step.name: (began, now_ms)},
        at=run.at + 1,
        approved=False,
        waiting=None,
        back_to="doing",
    )
    return _begin(after, now_ms)


def _supersede(run: Run, event: Event, now_ms: int) -> Outcome:
    return msgspec.structs.replace(run, phase="superseded", waiting=None, ended_at_ms=now_ms), ()


def _undo_next(run: Run, now_ms: int) -> Outcome:
    at = run.at
    while at >= 0 and not ACTIONS[run.plan.steps[at].action].undo:
        at -= 1
    if at < 0:
        return msgspec.structs.replace(run, phase="aborted", at=0, ended_at_ms=now_ms), ()
    after = msgspec.structs.replace(run, phase="undoing", at=at, attempt=_next_round(run))
    return after, (Undo(after.step, after.attempt),)


def _undid(run: Run, event: Event, now_ms: int) -> Outcome:
    assert isinstance(event, Undid)  # noqa: S101
    evidence = {**run.evidence, run.step.name: event.evidence}
    return _undo_next(msgspec.structs.replace(run, at=run.at - 1, evidence=evidence), now_ms)


def _undo_failed(run: Run, event: Event, now_ms: int) -> Outcome:
    assert isinstance(event, Failed)  # noqa: S101
    evidence = {**run.evidence, run.step.name: f"{event.code}: {event.message}"}
    if run.attempt % _ROUND < run.step.retries:
        again = msgspec.structs.replace(run, attempt=run.attempt + 1, evidence=evidence)
        return again, (Undo(run.step, again.attempt),)
    waiting = Waiting(run.step.name, event.code, event.message, "undoing")
    return msgspec.structs.replace(run, phase="waiting", waiting=waiting, evidence=evidence), ()


def _resume_undoing(run: Run, event: Event, now_ms: int) -> Outcome:
    return _undo_next(run, now_ms)


def _next_round(run: Run) -> int:
    return (run.attempt // _ROUND + 1) * _ROUND


TRANSITIONS: Mapping[tuple[Phase, type[Event]], _Handler] = {
    ("new", Started): _start,
    ("doing", Did): _did,
    ("doing", Failed): _failed,
    ("doing", AbortAsked): _abort,
    ("doing", Resumed): _resume,
    ("verifying", Verified): _verified,
    ("verifying", Failed): _failed,
    ("verifying", AbortAsked): _abort,
    ("verifying", Resumed): _resume,
    ("proving", Verified): _proved,
    ("proving", Did): _reasserted,
    ("proving", Failed): _not_proved,
    ("proving", AbortAsked): _abort,
    ("proving", Resumed): _resume,
    ("waiting", Approved): _approve,
    ("waiting", AbortAsked): _abort,
    ("waiting", Skipped): _skip,
    ("waiting", Resumed): _resume_waiting,
    ("undoing", Undid): _undid,
    ("undoing", Failed): _undo_failed,
    ("undoing", Resumed): _resume_undoing,
    **dict.fromkeys(((phase, Superseded) for phase in ("new", "doing", "verifying", "proving", "waiting", "undoing")), _supersede),
}

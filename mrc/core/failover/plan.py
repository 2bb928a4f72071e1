"""Plans: immutable lists of steps made from a runbook and one observation of the world; and the judges of both.

`as_seen` leaves out what the observation makes needless, `lint` judges a runbook by the table of actions alone, `unexplained`
what it says to people, `findings` judges the world, `make_plan` puts them together. None of them touches anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from mrc.core.errors import InvariantViolation, MrcError
from mrc.core.failover.actions import ACTIONS, METHODS, Action
from mrc.core.failover.runbook import PLANNED, Approval, MoveKind, OnFailure, Parameter, Runbook, RunbookStep, approval_of
from mrc.core.model import Epoch, Region, Written
from mrc.core.views import FindingView


class PlanStep(Written, frozen=True):
    """A runbook's step in a plan; see `mrc.core.failover.runbook.RunbookStep`."""

    name: str
    action: str
    parameters: dict[str, Parameter]
    timeout_s: float
    retries: int
    approval_rule: bool | Approval = msgspec.field(default=False, name="approval")
    on_failure: OnFailure = "ask"

    @property
    def approval(self) -> bool:
        """Whether a person must approve before the step begins."""
        return self.approval_rule is not False


class Plan(Written, frozen=True):
    """What an execution will do, pinned. Kept in the journal's head.

    Attributes:
        id: the execution's id.
        epoch: of the active-region record when the plan was made; opening the target makes it one more.
        runbook_hash: SHA-256 of the runbook file.
        token: idempotency token of the request; the same token answers with the same execution.
        attested: a person has said that the source is dead (failover).
        self_imposed: why the source's agents must have fenced it by themselves, where nobody has said so; else empty.
        actor, reason: who asked, and why.
        supersedes: id of the execution whose place a failover has taken; empty: none.
        left_out: steps of the runbook that are not in the plan, each with the reason.
        restarted: the actor sees to it that producers are started anew which a redirect would carry along.
        deletes: of a rebuild, id by name of the topics that it may delete in the target; no other one is.
        allow_data_loss: of a rebuild, records in them may be deleted that nobody else may have.
    """

    id: str
    replication_group: str
    kind: MoveKind
    source: Region
    target: Region
    epoch: Epoch
    runbook: str
    runbook_hash: str
    steps: tuple[PlanStep, ...]
    made_at_ms: int
    token: str
    attested: bool
    actor: str
    reason: str
    supersedes: str = ""
    left_out: tuple[str, ...] = ()
    self_imposed: str = ""
    restarted: bool = False
    deletes: dict[str, str] = {}
    allow_data_loss: bool = False
    version: Literal[1] = 1

    @property
    def planned(self) -> bool:
        """Whether the source is alive and nothing may be lost: all that a switchover promises."""
        return self.kind in PLANNED


TEXTS = ("why", "by_hand", "check", "risks")
"""What every step must say to people."""


def as_seen(runbook: Runbook, *, source_reachable: bool) -> Runbook:
    """Return the runbook without the steps whose condition does not hold; ``left_out`` names them.

    A condition on a step that the kind of move requires is left in its place, for `lint` to refuse.
    """
    steps: list[RunbookStep] = []
    left_out: list[str] = []
    seen = "answers" if source_reachable else "does not answer"
    for step in runbook.steps:
        action = ACTIONS.get(step.action)
        if step.only_if is None or action is None or runbook.kind in action.required:
            steps.append(step)
        elif (step.only_if == "source-reachable") == source_reachable:
            steps.append(msgspec.structs.replace(step, only_if=None))
        else:
            left_out.append(f"step {step.name} is left out: it is there only if {step.only_if}, and Kafka of the source {seen}")
    return msgspec.structs.replace(runbook, steps=tuple(steps), left_out=(*runbook.left_out, *left_out))


def lint(runbook: Runbook) -> tuple[FindingView, ...]:
    """Return what is wrong with a runbook: unknown actions or parameters, a missing required step, an unsafe order.

    Every finding names the step in ``where``. Severity is ``error``, but ``info`` for a step that the planner has left out.
    """
    found: list[FindingView] = []
    given: set[str] = set()
    opened = False
    names: set[str] = set()
    for number, step in enumerate(runbook.steps):
        where = f"step {step.name}"
        if step.name in names:
            found.append(_error(f"the step name {step.name} is used twice", where))
        names.add(step.name)
        action = ACTIONS.get(step.action)
        if action is None:
            found.append(_error(f"unknown action {step.action}; allowed: {', '.join(sorted(ACTIONS))}", where))
            continue
        found.extend(_wrong_parameters(step, where))
        if runbook.kind not in action.needs:
            found.append(_error(f"{step.action} has no place in a {runbook.kind}", where))
            continue
        missing = action.needs[runbook.kind] - given
        if missing:
            givers = {fact: [name for name, a in ACTIONS.items() if fact in a.gives and runbook.kind in a.needs] for fact in missing}
            hint = "; ".join(f"{fact} is given by {' or '.join(givers[fact])}" for fact in sorted(missing))
            found.append(_error(f"unsafe order: {step.action} needs {', '.join(sorted(missing))} first ({hint})", where))
        if opened and action.undo:
            found.append(_error(f"unsafe order: {step.action} comes after the point of no return", where))
        opened = opened or action.opens
        found.extend(_error(message, where) for message in _wrong_ways(runbook, number, action, opened=opened))
        given = given - action.takes | action.gives
    found.extend(_wrong_counts(runbook))
    found.extend(FindingView(code="STEP_LEFT_OUT", severity="info", message=text) for text in runbook.left_out)
    return tuple(found)


def unexplained(runbook: Runbook) -> tuple[FindingView, ...]:
    """Return the steps that do not say to people what they must: an error each.

    A plan does not ask: a text that is missing must not keep anybody from moving away from a dead region.
    """
    silent = ((step, [text for text in TEXTS if not getattr(step, text).strip()]) for step in runbook.steps)
    return tuple(_error(f"says nothing about {', '.join(texts)}", f"step {step.name}") for step, texts in silent if texts)


def _wrong_ways(runbook: Runbook, number: int, action: Action, *, opened: bool) -> Iterator[str]:
    """Yield what is wrong with a step's condition, its way on after a failure, and its approval.

    Args:
        opened: the target has been opened when the step has been begun.
    """
    step = runbook.steps[number]
    if step.only_if is not None and runbook.kind in action.required:
        yield f"only_if: a {runbook.kind} cannot do without {step.action}"
    if step.on_failure == "undo" and opened:
        yield f"on_failure: undo: there is no way back once {step.action} has begun; allowed here: ask, go-on"
    if step.on_failure == "go-on":
        later = [after.name for after in runbook.steps[number + 1 :] if action.gives & _needs(after, runbook.kind)]
        if later:
            yield f"on_failure: go-on: {later[0]} needs what {step.action} gives; allowed here: ask{'' if opened else ', undo'}"
        elif not action.skipping:
            yield f"on_failure: go-on: a {runbook.kind} cannot do without {step.action}"
    approval = approval_of(step.approval_rule)
    if approval is None and action.asks:
        yield f"approval: {step.action} waits for a person; allowed here: true, or a mapping"
    if approval is not None and approval.timeout_s is not None and opened and not action.opens:
        yield "approval.timeout_s: a move is undone when the time is over, and there is no way back behind the point of no return"


def _needs(step: RunbookStep, kind: MoveKind) -> frozenset[str]:
    action = ACTIONS.get(step.action)
    return frozenset() if action is None else action.needs.get(kind, frozenset())


def _wrong_parameters(step: RunbookStep, where: str) -> list[FindingView]:
    action = ACTIONS[step.action]
    allowed = action.parameters
    found = [
        f"unknown parameter {name} of {step.action}; allowed: {', '.join(allowed) or 'none'}"
        for name in step.parameters
        if name not in allowed
    ]
    for name, kind in allowed.items():
        value = step.parameters.get(name)
        if value is None:
            if name not in action.one_of:
                found.append(f"parameter {name} of {step.action} is missing")
        elif type(value) is not kind or value in ((), ""):
            noun = {tuple: "list of words", int: "whole number", str: "text"}.get(kind, kind.__name__)
            found.append(f"parameter {name} of {step.action} must be a {noun}")
        else:
            found.extend(_wrong_value(step, name, value))
    if action.one_of and len(action.one_of & step.parameters.keys()) != 1:
        found.append(f"{step.action} needs one of {' and '.join(sorted(action.one_of))}, and not both")
    return [_error(message, where) for message in found]


def _wrong_value(step: RunbookStep, name: str, value: Parameter) -> Iterator[str]:
    if name == "url" and not is_web_address(str(value)):
        yield f"url of {step.action} must be an address that begins with http:// or https://, without a user name in it; it is {value!r}"
    elif name == "method" and value not in METHODS:
        yield f"method of {step.action} must be one of {', '.join(METHODS)}; it is {value!r}"
    elif name == "seconds" and isinstance(value, int) and not 0 < value < step.timeout_s:
        yield f"seconds of {step.action} must be more than 0 and less than the step's timeout_s, {step.timeout_s:g}; it is {value}"


def is_web_address(text: str) -> bool:
    """Whether a request may be sent there: http or https, a host, no user and no password in the address."""
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return False
    plain = text.isascii() and text.isprintable() and " " not in text
    return plain and parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc


def _wrong_counts(runbook: Runbook) -> list[FindingView]:
    found = []
    for name, action in ACTIONS.items():
        count = sum(step.action == name for step in runbook.steps)
        if runbook.kind in action.required and count != 1:
            found.append(_error(f"a {runbook.kind} needs exactly one step with action {name}; found {count}", f"runbook {runbook.runbook}"))
        elif count > 1 and not action.custom:
            found.append(_error(f"action {name} may be used once; found {count}", f"runbook {runbook.runbook}"))
    return found


def _error(message: str, where: str) -> FindingView:
    return FindingView(code="RUNBOOK_INVALID", severity="error", message=message, where=where)


def make_plan(
    runbook: Runbook,
    runbook_hash: str,
    *,
    execution: str,
    replication_group: str,
    source: Region,
    target: Region,
    epoch: Epoch,
    now_ms: int,
    token: str,
    attested: bool,
    actor: str,
    reason: str,
    supersedes: str = "",
    self_imposed: str = "",
    restarted: bool = False,
    deletes: Mapping[str, str] = MappingProxyType({}),
    allow_data_loss: bool = False,
) -> Plan:
    """Return the plan of a runbook that lints clean and whose conditions `as_seen` has judged.

    Raises:
        MrcError: ``RUNBOOK_INVALID`` with the first finding.
    """
    wrong = [finding for finding in lint(runbook) if finding.severity == "error"]
    if wrong:
        raise MrcError("RUNBOOK_INVALID", wrong[0].message, where=wrong[0].where)
    unjudged = [step.name for step in runbook.steps if step.only_if is not None]
    if unjudged:
        raise InvariantViolation(f"nobody has judged the condition of step {unjudged[0]}", where=runbook.runbook)
    return Plan(
        id=execution,
        replication_group=replication_group,
        kind=runbook.kind,
        source=source,
        target=target,
        epoch=epoch,
        runbook=runbook.runbook,
        runbook_hash=runbook_hash,
        steps=tuple(
            PlanStep(
                name=step.name,
                action=step.action,
                parameters=step.parameters,
                timeout_s=step.timeout_s,
                retries=step.retries,
                approval_rule=step.approval_rule,
                on_failure=step.on_failure,
            )
            for step in runbook.steps
        ),
        made_at_ms=now_ms,
        token=token,
        attested=attested,
        actor=actor,
        reason=reason,
        supersedes=supersedes,
        left_out=runbook.left_out,
        self_imposed=self_imposed,
        restarted=restarted,
        deletes=dict(deletes),
        allow_data_loss=allow_data_loss,
    )

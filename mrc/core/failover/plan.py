"""Plans: immutable lists of steps made from a runbook and one observation of the world; and the judges of both.

`lint` judges a runbook by the table of actions alone, `findings` judges the world, `make_plan` puts them together. None of
them touches anything.
"""

from __future__ import annotations

from typing import Literal

from mrc.core.errors import MrcError
from mrc.core.failover.actions import ACTIONS
from mrc.core.failover.runbook import MoveKind, Parameter, Runbook, RunbookStep
from mrc.core.model import Epoch, Region, Written
from mrc.core.views import FindingView


class PlanStep(Written, frozen=True):
    """A runbook's step in a plan; see `mrc.core.failover.runbook.RunbookStep`."""

    name: str
    action: str
    parameters: dict[str, Parameter]
    timeout_s: float
    retries: int
    approval: bool


class Plan(Written, frozen=True):
    """What an execution will do, pinned. Kept in the journal's head.

    Attributes:
        id: the execution's id.
        epoch: of the active-region record when the plan was made; opening the target makes it one more.
        runbook_hash: SHA-256 of the runbook file.
        token: idempotency token of the request; the same token answers with the same execution.
        attested: a person has said that the source is dead (failover).
        actor, reason: who asked, and why.
        supersedes: id of the execution whose place a failover has taken; empty: none.
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
    version: Literal[1] = 1


def lint(runbook: Runbook) -> tuple[FindingView, ...]:
    """Return what is wrong with a runbook: unknown actions or parameters, a missing required step, an unsafe order.

    Every finding has severity ``error`` and names the step in ``where``.
    """
    found: list[FindingView] = []
    given: set[str] = set()
    opened = False
    names: set[str] = set()
    for step in runbook.steps:
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
        given |= action.gives
        opened = opened or action.opens
    found.extend(_wrong_counts(runbook))
    return tuple(found)


def _wrong_parameters(step: RunbookStep, where: str) -> list[FindingView]:
    allowed = ACTIONS[step.action].parameters
    found = [
        _error(f"unknown parameter {name} of {step.action}; allowed: {', '.join(allowed) or 'none'}", where)
        for name in step.parameters
        if name not in allowed
    ]
    for name, kind in allowed.items():
        value = step.parameters.get(name)
        if value is None:
            found.append(_error(f"parameter {name} of {step.action} is missing", where))
        elif not isinstance(value, kind) or value == ():
            found.append(
                _error(f"parameter {name} of {step.action} must be a {'list of words' if kind is tuple else kind.__name__}", where)
            )
    return found


def _wrong_counts(runbook: Runbook) -> list[FindingView]:
    found = []
    for name, action in ACTIONS.items():
        count = sum(step.action == name for step in runbook.steps)
        if runbook.kind in action.required and count != 1:
            found.append(_error(f"a {runbook.kind} needs exactly one step with action {name}; found {count}", f"runbook {runbook.runbook}"))
        elif count > 1 and name != "command":
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
) -> Plan:
    """Return the plan of a runbook that lints clean.

    Raises:
        MrcError: ``RUNBOOK_INVALID`` with the first finding.
    """
    wrong = lint(runbook)
    if wrong:
        raise MrcError("RUNBOOK_INVALID", wrong[0].message, where=wrong[0].where)
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
                approval=step.approval,
            )
            for step in runbook.steps
        ),
        made_at_ms=now_ms,
        token=token,
        attested=attested,
        actor=actor,
        reason=reason,
        supersedes=supersedes,
    )

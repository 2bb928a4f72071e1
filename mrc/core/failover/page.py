"""A runbook as a page for people, in Markdown: what each step does, why, how by hand, how to check, what can go wrong.

Written from the runbook and the table of actions alone, so that it can be printed and read when nothing else answers.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from mrc.core.failover import diagram
from mrc.core.failover.actions import ACTIONS, Action
from mrc.core.failover.runbook import Runbook, RunbookStep, approval_of


def markdown(runbook: Runbook, digest: str) -> str:
    """Return the page of a runbook that lints clean.

    Args:
        digest: of its file, so that a printed page can be compared with the file.
    """
    parts = [f"# Runbook {runbook.runbook}", f"A {runbook.kind} in {len(runbook.steps)} steps; file {digest[:12]}."]
    if runbook.description.strip():
        parts.append(runbook.description.strip())
    parts += ["\n".join(_overview(runbook)), f"```mermaid\n{diagram.steps(runbook)}\n```"]
    opened = False
    for number, step in enumerate(runbook.steps, 1):
        opened = opened or ACTIONS[step.action].opens
        parts += _step(number, step, opened=opened)
    return "\n\n".join(parts) + "\n"


def _overview(runbook: Runbook) -> Iterator[str]:
    yield "|  | step | time-out | tries | approval | after the last failure |"
    yield "| --- | --- | --- | --- | --- | --- |"
    opened = False
    for number, step in enumerate(runbook.steps, 1):
        action = ACTIONS[step.action]
        opened = opened or action.opens
        name = f"`{step.name}`" + (" **point of no return**" if action.opens else "")
        cells = (str(number), name, f"{step.timeout_s:g} s", str(step.retries + 1), approval(step), after_failure(step, opened=opened))
        yield f"| {' | '.join(cells)} |"


def _step(number: int, step: RunbookStep, *, opened: bool) -> Iterator[str]:
    action = ACTIONS[step.action]
    yield f"## {number}. {step.name}"
    if action.opens:
        yield "**The point of no return.** There is no abort once this step has begun."
    yield f"**What.** {_sentence(action.does)}{_told(step)}"
    for head, text in (("Why", step.why), ("By hand", step.by_hand), ("Check", step.check), ("What can go wrong", step.risks)):
        said = text.strip() or "Nothing is said about it."
        yield f"**{head}.**\n\n{said}" if said.startswith("```") else f"**{head}.** {said}"
    yield "\n".join(f"- {line}" for line in _limits(step, action, opened=opened))


def _told(step: RunbookStep) -> str:
    """Return a step's parameters as they are written, after a space."""
    if not step.parameters:
        return ""
    return f" Parameters: `{msgspec.json.encode(step.parameters).decode()}`."


def _limits(step: RunbookStep, action: Action, *, opened: bool) -> Iterator[str]:
    tries = "one try" if not step.retries else f"{step.retries + 1} tries"
    yield f"Time-out: {step.timeout_s:g} s a try, {tries}."
    yield f"Approval: {approval(step)}."
    yield f"After the last failure: {after_failure(step, opened=opened)}."
    if step.only_if:
        yield f"Only if, when the move is planned, the source is {step.only_if.removeprefix('source-')}."
    yield f"Undo: {action.undo or f'none, {action.why_no_undo}'}."


def approval(step: RunbookStep) -> str:
    """Return who must approve a step, in words."""
    asked = approval_of(step.approval_rule)
    if asked is None:
        return "none"
    who = "by somebody else than who began the move" if asked.by == "another" else "by a person"
    return who if asked.timeout_s is None else f"{who}, within {asked.timeout_s:g} s, else the move is undone"


def after_failure(step: RunbookStep, *, opened: bool) -> str:
    """Return what follows a step's last failure, in words.

    Args:
        opened: the step is the one that opens the target, or comes after it.
    """
    if step.action == "notify":
        return "the move goes on"
    match step.on_failure:
        case "undo":
            return "the move is undone"
        case "go-on":
            return "the move goes on without it"
    skip = ", or skip" if ACTIONS[step.action].skipping else ""
    return f"a person is asked: approve{skip}" if opened else f"a person is asked: approve{skip}, or abort"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."

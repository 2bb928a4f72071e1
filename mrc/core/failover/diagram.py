"""Drawings, in Mermaid: a runbook's steps with what follows a failure, and the mover's states.

The states are not written down twice: every row of `mrc.core.failover.execution.TRANSITIONS` is taken, from every situation that
some plan can come to, and an arrow is drawn to where it leads.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterator
from typing import Any, get_args

import msgspec

from mrc.core.errors import InvariantViolation, MrcError
from mrc.core.failover.actions import ACTIONS
from mrc.core.failover.execution import ENDED, TRANSITIONS, Event, Phase, Run, handle
from mrc.core.failover.plan import Plan, make_plan
from mrc.core.failover.runbook import MoveKind, OnFailure, Runbook, RunbookStep, approval_of
from mrc.core.model import Epoch, Region

_SITUATIONS_MAX = 10_000

# ---------------------------------------------------------------- a runbook's steps

_ENDS = {
    "done": "done([succeeded])",
    "ask": 'ask{{"a person is asked: approve to try again, or abort"}}',
    "stay": 'stay{{"a person is asked: approve to try again; there is no way back"}}',
    "back": 'back(["undone: the source is open"])',
}


def steps(runbook: Runbook) -> str:
    """Return the flowchart of a runbook that lints clean: its steps in order, and dotted what follows the last failure of each."""
    lines = ["flowchart TD", f"    begin([{runbook.kind}]) --> {_entry(runbook, 0)}"]
    opened = False
    for number, step in enumerate(runbook.steps):
        action = ACTIONS[step.action]
        lines += _gates(runbook, number, opened=opened)
        opened = opened or action.opens
        lines.append(f"    s{number} --> {_entry(runbook, number + 1)}")
        if step.action != "notify":
            lines.append(f"    s{number} -. {_tries(step)} .-> {_afterwards(runbook, number, opened=opened)}")
    lines.append("    ask -. abort .-> back")
    reached = [name for name in _ENDS if any(line.endswith(f"> {name}") for line in lines if not line.startswith("    ask "))]
    if "ask" not in reached:
        lines.pop()
    elif "back" not in reached:
        reached.append("back")
    return "\n".join([*lines, *(f"    {_ENDS[name]}" for name in reached)])


def _entry(runbook: Runbook, number: int) -> str:
    """Return the node by which a step is come to: its condition, its approval, or the step itself."""
    if number == len(runbook.steps):
        return "done"
    step = runbook.steps[number]
    return f"c{number}" if step.only_if else f"a{number}" if step.approval else f"s{number}"


def _gates(runbook: Runbook, number: int, *, opened: bool) -> Iterator[str]:
    """Yield a step's node and what stands in front of it."""
    step = runbook.steps[number]
    if step.only_if:
        yield f'    c{number}{{"{step.only_if.replace("-", " ")}?"}} -- yes --> {"a" if step.approval else "s"}{number}'
        yield f"    c{number} -- no --> {_entry(runbook, number + 1)}"
    approval = approval_of(step.approval_rule)
    if approval is not None:
        who = "somebody else than who began" if approval.by == "another" else "a person"
        yield f'    a{number}{{{{"approval by {who}"}}}} -- approved --> s{number}'
        if not opened:
            late = f" or after {approval.timeout_s:g} s" if approval.timeout_s is not None else ""
            yield f"    a{number} -. abort{late} .-> back"
    label = step.name if step.name == step.action else f"{step.name}<br/>{step.action}"
    if ACTIONS[step.action].opens:
        yield f'    s{number}[["{label}<br/>point of no return"]]'
    else:
        yield f'    s{number}["{label}"]'


def _tries(step: RunbookStep) -> str:
    return "fails" if step.retries == 0 else f"fails {step.retries + 1} times"


def _afterwards(runbook: Runbook, number: int, *, opened: bool) -> str:
    """Return the node that a step's last failure leads to."""
    match runbook.steps[number].on_failure:
        case "undo":
            return "back"
        case "go-on":
            return _entry(runbook, number + 1)
    return "stay" if opened else "ask"


# ---------------------------------------------------------------- the mover's states


@functools.cache
def machine() -> str:
    """Return the state diagram of an execution's phases.

    Raises:
        InvariantViolation: for a row of the table that no execution ever takes.
    """
    edges: dict[tuple[Phase, Phase], list[str]] = {}
    found = destinations()
    for row in TRANSITIONS:
        for end in sorted(found[row], key=get_args(Phase).index):
            edges.setdefault((row[0], end), []).append(str(row[1].__struct_config__.tag))
    lines = ["stateDiagram-v2", "    [*] --> new"]
    lines += [f"    {begin} --> {end} : {', '.join(labels)}" for (begin, end), labels in edges.items()]
    lines += [f"    {end} --> [*]" for end in get_args(Phase) if end in ENDED]
    return "\n".join(lines)


def destinations() -> dict[tuple[Phase, type[Event]], set[Phase]]:
    """Return, per row of `TRANSITIONS`, the phases that it can lead to. Raises `InvariantViolation` for a row never taken."""
    found: dict[tuple[Phase, type[Event]], set[Phase]] = {}
    runs = deque(Run(plan) for plan in _plans())
    seen: set[object] = {_situation(run) for run in runs}
    while runs:
        run = runs.popleft()
        for phase, kind in TRANSITIONS:
            if phase != run.phase:
                continue
            try:
                after, _ = handle(run, _event(kind, run), 0)
            except MrcError as error:
                if error.kind == "bug":
                    raise
                continue  # refused, such as an abort after the point of no return
            found.setdefault((phase, kind), set()).add(after.phase)
            if _situation(after) not in seen:
                seen.add(_situation(after))
                runs.append(after)
        if len(seen) > _SITUATIONS_MAX:
            raise InvariantViolation("the mover has more situations than can be drawn")
    never = [f"{phase}/{kind.__struct_config__.tag}" for phase, kind in TRANSITIONS if (phase, kind) not in found]
    if never:
        raise InvariantViolation(f"no execution ever takes {', '.join(never)}")
    return found


def _plans() -> Iterator[Plan]:
    """Yield plans that between them know every way of the machine: a person asked before every other step, every way on after a failure."""
    kinds: tuple[MoveKind, ...] = get_args(MoveKind)
    ways: tuple[OnFailure, ...] = get_args(OnFailure)
    for kind in kinds:
        for way in ways:
            yield make_plan(
                _every_step(kind, way),
                "",
                execution=f"{kind} {way}",
                replication_group="",
                source=Region("east"),
                target=Region("west"),
                epoch=Epoch(1),
                now_ms=0,
                token="",
                attested=True,
                actor="",
                reason="",
            )


def _every_step(kind: MoveKind, way: OnFailure) -> Runbook:
    """Return a runbook with a command first and last, and between them every action of a kind of move, in the order of the table."""
    names = [name for name, action in ACTIONS.items() if kind in action.needs and not action.custom]
    parameters: dict[str, Any] = {"argv": ("true",)}
    made = [
        RunbookStep(
            name=f"step-{number}",
            action=name,
            parameters=parameters if name == "command" else {},
            retries=1,
            approval_rule=number % 2 == 1 or ACTIONS[name].asks,
        )
        for number, name in enumerate(["command", *names, "command"])
    ]
    opening = next((number for number, step in enumerate(made) if ACTIONS[step.action].opens), len(made))
    for number, step in enumerate(made):
        if (way == "undo" and number < opening) or (way == "go-on" and ACTIONS[step.action].skipping):
            made[number] = msgspec.structs.replace(step, on_failure=way)
    return Runbook(runbook="every-step", kind=kind, steps=tuple(made))


def _event(kind: type[Event], run: Run) -> Event:
    """Return an event of a kind that speaks of the run's step and try, and is empty otherwise."""
    told: dict[str, Any] = {"step": run.step.name, "attempt": run.attempt, "code": "NOT_VERIFIED"}
    return kind(**{field.name: told.get(field.name, "") for field in msgspec.structs.fields(kind) if field.required})


def _situation(run: Run) -> object:
    """What decides what can happen next; times, evidence and the number of rounds do not."""
    asked = run.waiting and run.waiting.back_to
    return run.plan.id, run.phase, run.at, run.attempt % 100, run.opened, run.approved, run.proving, run.back_to, asked

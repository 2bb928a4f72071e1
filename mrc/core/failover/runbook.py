"""A runbook as people write it: the order of a move's steps, their parameters, time-outs and approvals.

Owns the shape only. Which actions exist and which orders are safe is the planner's and the linter's business.
There are no loops and no expressions.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from mrc.core.model import Written

Name = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{0,63}$")]
"""A lower-case word with hyphens, at most 64 characters."""

Parameter = str | int | bool | tuple[str, ...]

MoveKind = Literal["switchover", "failover"]


class RunbookStep(Written, frozen=True):
    """One step.

    Attributes:
        name: unique in its runbook; the journal and the plan speak of the step by it.
        action: what to do; a name from the table of actions.
        parameters: what the action is told.
        timeout_s: how long one try may take, seconds.
        retries: tries after the first one, 0 to 10.
        approval: whether a person must approve before the step begins.
    """

    name: Name
    action: Name
    parameters: dict[str, Parameter] = {}
    timeout_s: Annotated[float, Meta(gt=0, le=86_400)] = 30.0
    retries: Annotated[int, Meta(ge=0, le=10)] = 2
    approval: bool = False


class Runbook(Written, frozen=True):
    """An ordered list of steps for one kind of move.

    Attributes:
        runbook: its name.
        kind: the kind of move that it describes.
        steps: at least one, in order.
        description: for people.
    """

    runbook: Name
    kind: MoveKind
    steps: Annotated[tuple[RunbookStep, ...], Meta(min_length=1)]
    description: str = ""

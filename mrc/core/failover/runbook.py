"""A runbook as people write it: a move's steps in order, their parameters, limits and approvals, and what people must know.

Owns the shape only. Which actions exist and which orders are safe is the planner's and the linter's business.
There are no loops and no expressions; a condition is one word about what was seen when the move was planned.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from mrc.core.model import Written

Name = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{0,63}$")]
"""A lower-case word with hyphens, at most 64 characters."""

Parameter = str | int | bool | tuple[str, ...]

MoveKind = Literal["switchover", "failover", "fence", "failback", "rebuild"]
"""A fence moves nothing: it closes the source to writers until a person lets it open again; its target only carries it out.

A failback first recovers what only the region to which it leads has, then is a switchover.
A rebuild moves nothing either: its target is made anew from its source, which stays open.
"""

PLANNED: frozenset[MoveKind] = frozenset({"switchover", "failback"})
"""Kinds of move whose source is alive, and of which nothing is lost."""

STAYING: frozenset[MoveKind] = frozenset({"fence", "rebuild"})
"""Kinds of move that open no other region: nobody is sent anywhere, no position decides where anybody goes on."""

OnFailure = Literal["ask", "undo", "go-on"]
"""What becomes of a move whose step has failed as often as it may: a person is asked; it is undone; it goes on without the step."""

Condition = Literal["source-reachable", "source-unreachable"]
"""What must have been seen when the move was planned: Kafka of the region to be left answers, or does not."""


class Approval(Written, frozen=True):
    """Who must approve a step before it begins, and until when.

    Attributes:
        by: ``another``: not the person who started the move.
        timeout_s: seconds after which nobody may approve any more and the move is undone; None: it waits for ever.
    """

    by: Literal["anybody", "another"] = "anybody"
    timeout_s: Annotated[float, Meta(gt=0, le=604_800)] | None = None

    def lapsed(self, waited_ms: int) -> bool:
        """Whether nobody may approve any more."""
        return self.timeout_s is not None and waited_ms > self.timeout_s * 1000

    def refusal(self, actor: str, starter: str, waited_ms: int) -> str:
        """Return why ``actor`` may not approve; empty where they may."""
        if self.lapsed(waited_ms):
            return f"it had to be approved within {self.timeout_s:g} s; the move is undone"
        if self.by == "another" and actor == starter:
            return f"somebody else than {starter}, who began the move, has to approve it"
        return ""

    def asks(self, starter: str) -> str:
        """Return what is asked for beyond anybody's word, in words that follow "approval of step NAME"; empty: nothing."""
        who = f" by somebody else than {starter}" if self.by == "another" else ""
        return who if self.timeout_s is None else f"{who} within {self.timeout_s:g} s, else the move is undone"


class RunbookStep(Written, frozen=True):
    """One step.

    Attributes:
        name: unique in its runbook; the journal and the plan speak of the step by it.
        action: what to do; a name from the table of actions.
        parameters: what the action is told.
        timeout_s: how long one try may take, seconds.
        retries: tries after the first one, 0 to 10.
        approval_rule: the key ``approval``: whether a person must approve before the step begins; an `Approval` says who and until when.
        on_failure: what happens after the last try.
        only_if: leave the step out of the plan unless this was seen; None: never left out.
        why: for people, Markdown, as the three below: what the step is for.
        by_hand: how a person would do it without mrc.
        check: how a person sees that it has worked.
        risks: what can go wrong.
    """

    name: Name
    action: Name
    parameters: dict[str, Parameter] = {}
    timeout_s: Annotated[float, Meta(gt=0, le=86_400)] = 30.0
    retries: Annotated[int, Meta(ge=0, le=10)] = 2
    approval_rule: bool | Approval = msgspec.field(default=False, name="approval")
    on_failure: OnFailure = "ask"
    only_if: Condition | None = None
    why: str = ""
    by_hand: str = ""
    check: str = ""
    risks: str = ""

    @property
    def approval(self) -> bool:
        """Whether a person must approve before the step begins."""
        return self.approval_rule is not False


class Runbook(Written, frozen=True):
    """An ordered list of steps for one kind of move.

    Attributes:
        runbook: its name.
        kind: the kind of move that it describes.
        steps: at least one, in order.
        description: for people.
        left_out: steps that the planner has left out, each with the reason (`mrc.core.failover.plan.as_seen`); never in a file.
    """

    runbook: Name
    kind: MoveKind
    steps: Annotated[tuple[RunbookStep, ...], Meta(min_length=1)]
    description: str = ""
    left_out: tuple[str, ...] = ()


def approval_of(rule: bool | Approval) -> Approval | None:  # noqa: FBT001 - the value of the key
    """Return what a step's ``approval`` asks for; None: nothing."""
    if isinstance(rule, Approval):
        return rule
    return Approval() if rule else None

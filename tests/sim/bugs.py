"""Bugs that are put into production code, each at one place, and the seed by which the simulation finds it.

The place is named by its text: when the code changes so that the text is not there any more, the table says so instead of testing
nothing.
"""

from __future__ import annotations

import inspect
import textwrap
from typing import Any, NamedTuple

import pytest

from mrc.agent import fencing, old_log, positions, turning
from mrc.agent.leadership import Leadership
from mrc.agent.mover import Mover
from mrc.agent.quorum import SelfFence
from mrc.core.failover import execution


class Bug(NamedTuple):
    """A bug.

    Attributes:
        owner: module or class of the function.
        old, new: the text that makes the bug, and what stands in its place.
        seed: finds it: its run breaks a promise with the bug and none without.
        code: the first promise that it breaks.
    """

    owner: Any
    function: str
    old: str
    new: str
    seed: int
    code: str

    def put_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put the bug into the code until the test ends."""
        function = inspect.getattr_static(self.owner, self.function)
        source = textwrap.dedent(inspect.getsource(function))
        if source.count(self.old) != 1:
            raise AssertionError(f"{self.function} does not hold this text once: {self.old}")
        names: dict[str, Any] = dict(function.__globals__)
        exec(compile(source.replace(self.old, self.new), f"<bug in {self.function}>", "exec", dont_inherit=True, flags=_FLAGS), names)
        made = names[self.function]
        # What the function calls must be the module's own, so that other patches and its state are seen.
        made = type(function)(made.__code__, function.__globals__, made.__name__, made.__defaults__, made.__closure__)
        made.__kwdefaults__ = function.__kwdefaults__
        monkeypatch.setattr(self.owner, self.function, made)
        for key, handler in execution.TRANSITIONS.items():
            if handler is function:
                monkeypatch.setitem(execution.TRANSITIONS, key, made)


_FLAGS = annotations.compiler_flag

BUGS: dict[str, Bug] = {
    "the target is opened before the source's fence is proved": Bug(
        fencing, "require_fenced", "proof = prove(estate, region, still=still)", 'proof = Proof("fenced", "")', 8, "LOST"
    ),
    "the last stable offset is forgotten": Bug(fencing, "prove", "tuple(tp for tp in tps if stable[tp] < after[tp])", "()", 66, "LATE_ACK"),
    "an execution is resumed without proving again": Bug(
        execution,
        "_resume",
        "tuple(index for index, step in enumerate(steps) if ACTIONS[step.action].proof and ACTIONS[step.action].gives <= holds)",
        "()",
        5,
        "JOURNAL",
    ),
    "the tasks of a stopped flow are not waited for": Bug(
        turning, "_without_tasks", "lambda: not replicator.status(connector).tasks", "lambda: True", 218, "OLD_FLOW"
    ),
    "positions are not clamped to the target's log": Bug(
        positions, "_wanted_positions", "Offset(max(starts[tp], min(position.offset, ends[tp])))", "position.offset", 388, "SKIPPED"
    ),
    "two agents lead, and the term keeps neither from writing": Bug(
        Leadership,
        "tick",
        "except Conflict:\n            return False",
        "except Conflict:\n            self._session, self.term = session, self.current_term()\n            return True",
        0,
        "JOURNAL",
    ),
    "a fence ends without a person": Bug(
        execution, "_begin", "not run.approved:", 'not run.approved and run.plan.kind != "fence":', 1, "FENCE_LEFT"
    ),
    "agents that hear no majority refuse nothing": Bug(SelfFence, "_refuse", "if estate.led_beside():", "if True:", 4, "NOT_SELF_FENCED"),
    # What follows was in the code, and the simulation has found it.
    "an execution whose taking up was not answered is left to nobody": Bug(Mover, "_take_up", "self.drop()", "pass", 26, "STUCK"),
    "a tail of the target's own is taken for copies": Bug(
        turning,
        "_list_own",
        "flowing.list_divergence(work.estate, work.lead, work.positions.sights.target)",
        "pass",
        48,
        "NOT_AS_RECORDED",
    ),
    "what stood of an entity first is written behind its tail": Bug(
        old_log, "_standing", "last[record.key] = record", "last.setdefault(record.key, record)", 643, "STALE"
    ),
}

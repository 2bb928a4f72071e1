"""The fewest happenings with which a seed still breaks the same promise."""

from __future__ import annotations

from collections.abc import Callable, Collection

from mrc.sim.faults import happenings
from mrc.sim.run import Outcome, run

Run = Callable[[int, Collection[int]], Outcome]


def shrink(outcome: Outcome, run_with: Run = lambda seed, left_out: run(seed, left_out=left_out)) -> Outcome:
    """Return the outcome of the same seed with as many happenings left out as can be while the first promise stays broken.

    Each happening is tried to be left out, the last first, until none can be any more: at most the square of their number in runs,
    and no smaller set exists that differs from the answer by one happening.

    Args:
        outcome: with at least one violation.
        run_with: runs a seed without these happenings; `run` where it is left out.
    """
    code = outcome.violations[0].code
    best = outcome
    tried = True
    while tried:
        tried = False
        for index in reversed(range(len(happenings(outcome.seed)))):
            if index in best.left_out:
                continue
            smaller = run_with(outcome.seed, {*best.left_out, index})
            if any(violation.code == code for violation in smaller.violations):
                best, tried = smaller, True
    return best


def replay_command(outcome: Outcome) -> str:
    """Return the command that runs it again."""
    left_out = f" --leave-out {','.join(map(str, outcome.left_out))}" if outcome.left_out else ""
    return f"mrc sim --seed {outcome.seed}{left_out}"

"""``mrc sim``: seeds of the simulation, run, replayed and shrunk."""

from __future__ import annotations

import re
import time
from collections.abc import Collection
from typing import TYPE_CHECKING

import click
import msgspec

from mrc.cli.exits import Exit
from mrc.cli.invocation import invocation
from mrc.cli.output import emit, grid
from mrc.core.errors import MrcError

if TYPE_CHECKING:
    from rich.table import Table

    from mrc.sim.run import Outcome

_TELL_EVERY_S = 5.0
_FAILED_MAX = 20


class Batch(msgspec.Struct, frozen=True):
    """What came of many seeds.

    Attributes:
        seeds: how many ran.
        failed: outcomes with violations, at most the first 20.
        replay: the command that runs each of them again.
    """

    first: int
    last: int
    seeds: int
    seconds: float
    seeds_per_minute: float
    failed: tuple[Outcome, ...]
    replay: tuple[str, ...]


@click.command()
@click.option("--seed", type=click.IntRange(min=0), metavar="N", help="Run this one and show what happened in it.")
@click.option("--seeds", "span", metavar="A..B", help="Run these, both ends included; ends early after 20 that fail.")
@click.option("--shrink", "shrinks", is_flag=True, help="Of what fails, leave out every happening that can be left out.")
@click.option("--leave-out", metavar="I,J,...", help="With --seed: happenings that do not happen, by their numbers.")
@click.option("--trace", is_flag=True, help="With --seed: every act of every agent on stderr, as it happens.")
@click.pass_context
def sim(ctx: click.Context, seed: int | None, span: str | None, shrinks: bool, leave_out: str | None, trace: bool) -> None:
    """Run the production agents in a simulated world in which things go wrong.

    Two regions, ZooKeeper, MirrorMaker 2 and applications are in memory, time is virtual, and a seed decides everything: who is
    scheduled when, which agents crash or sleep past their session, which links, replies and regions are lost, when operators move the
    unit. Checkers that know nothing of mrc's code judge every run. A seed gives the same run each time, byte for byte; `trace` in
    the answer is its hash. Nothing outside of this process is touched, no configuration is read.

    Exit code 3 when a promise was broken; the answer names the command that runs the failing seed again.

    \b
    Examples:
      mrc sim --seeds 1..500
      mrc sim --seeds 1..5000 --shrink --output json
      mrc sim --seed 17
      mrc sim --seed 17 --leave-out 0,3 --trace
    """
    if (seed is None) == (span is None):
        raise MrcError("BAD_REQUEST", "give either --seed or --seeds", where="mrc sim")
    if span is not None:
        if leave_out or trace:
            raise MrcError("BAD_REQUEST", "--leave-out and --trace speak of one seed", where="--seeds")
        _many(ctx, *_span(span), shrinks=shrinks)
    elif seed is not None:
        _one(ctx, seed, _indexes(leave_out, seed), shrinks=shrinks, trace=trace)


def _one(ctx: click.Context, seed: int, left_out: Collection[int], *, shrinks: bool, trace: bool) -> None:
    from mrc.sim.run import run
    from mrc.sim.shrinking import replay_command

    outcome = run(seed, left_out=left_out, tell=(lambda line: click.echo(line, err=True, nl=False)) if trace else None)
    if outcome.violations and shrinks:
        outcome = _shrunk(outcome)
    emit(ctx, outcome, table=outcome_table)
    if outcome.violations:
        click.echo(f"replay: {replay_command(outcome)}", err=True)
        ctx.exit(Exit.FINDINGS)


def _many(ctx: click.Context, first: int, last: int, *, shrinks: bool) -> None:
    from mrc.sim.run import run
    from mrc.sim.shrinking import replay_command

    began_s = told_s = time.monotonic()
    failed: list[Outcome] = []
    done = 0
    quiet = invocation(ctx).output != "table"
    for seed in range(first, last + 1):
        outcome = run(seed)
        done += 1
        if outcome.violations:
            failed.append(_shrunk(outcome) if shrinks else outcome)
            click.echo(f"seed {seed}: {outcome.violations[0].code}; replay: {replay_command(failed[-1])}", err=True)
        now_s = time.monotonic()
        if not quiet and now_s - told_s >= _TELL_EVERY_S:
            told_s = now_s
            click.echo(f"{done} of {last - first + 1} seeds, {done / (now_s - began_s) * 60:.0f} a minute, {len(failed)} failed", err=True)
        if len(failed) == _FAILED_MAX:
            break
    seconds = max(time.monotonic() - began_s, 1e-3)
    replay = tuple(replay_command(outcome) for outcome in failed)
    batch = Batch(first, last, done, round(seconds, 1), round(done / seconds * 60, 1), tuple(failed), replay)
    emit(ctx, batch, table=batch_table)
    if failed:
        ctx.exit(Exit.FINDINGS)


def _shrunk(outcome: Outcome) -> Outcome:
    from mrc.sim.shrinking import shrink

    click.echo(f"seed {outcome.seed}: shrinking", err=True)
    return shrink(outcome)


def outcome_table(outcome: Outcome) -> Table:
    """Return what happened in a run, then what it broke."""
    rows = [("happened", "", one) for one in outcome.happened]
    rows += [("broken", violation.code, violation.message) for violation in outcome.violations]
    counts = ", ".join(f"{count} {name}" for name, count in outcome.counts.items() if name in ("acks", "moves", "openings", "events"))
    verdict = f"{len(outcome.violations)} promises broken" if outcome.violations else "every promise held"
    return grid(("", "code", f"seed {outcome.seed}: {verdict}; {counts}; trace {outcome.trace[:16]}"), rows)


def batch_table(batch: Batch) -> Table:
    """Return a row per failed seed."""
    rows = [
        (outcome.seed, violation.code, violation.message, command)
        for outcome, command in zip(batch.failed, batch.replay, strict=True)
        for violation in outcome.violations[:1]
    ]
    summary = f"{batch.seeds} seeds in {batch.seconds:g} s, {batch.seeds_per_minute:g} a minute; {len(batch.failed)} failed"
    return grid((">seed", "code", summary, "replay"), rows)


def _span(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)\.\.(\d+)", text)
    if found is None or int(found[1]) > int(found[2]):
        raise MrcError("BAD_REQUEST", f"{text!r} is no span of seeds, such as 1..500", where="--seeds")
    return int(found[1]), int(found[2])


def _indexes(text: str | None, seed: int) -> frozenset[int]:
    from mrc.sim.faults import happenings

    if text is None:
        return frozenset()
    count = len(happenings(seed))
    if not re.fullmatch(r"\d+(,\d+)*", text) or any(int(index) >= count for index in text.split(",")):
        message = f"{text!r} does not name happenings of seed {seed}: numbers from 0 to {count - 1}, with commas between"
        raise MrcError("BAD_REQUEST", message, where="--leave-out")
    return frozenset(map(int, text.split(",")))

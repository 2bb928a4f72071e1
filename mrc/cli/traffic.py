"""``mrc sandbox traffic report``: what the traffic's own logs and the regions' topics say about loss, repetition and time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mrc.cli.exits import Exit
from mrc.cli.output import emit, grid

if TYPE_CHECKING:
    from rich.table import Table

    from mrc.sandbox.judge import Move, Verdict


@click.command()
@click.option(
    "--moves",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help='JSON list of the moves made: [{"kind", "from", "to", "accepted_at_ms", "captured": {GROUP: {TOPIC-PARTITION: OFFSET}}}, ...].',
)
@click.option("--drain", "drain_s", type=click.FloatRange(min=0), metavar="S", help="First end the producer and let the groups finish.")
@click.pass_context
def report(ctx: click.Context, moves: Path | None, drain_s: float | None) -> None:
    """Judge the traffic: nothing here asks mrc. Exit code 3 when a promise was broken.

    \b
    Examples:
      mrc sandbox traffic report --drain 30
      mrc sandbox traffic report --moves moves.json --output json
    """
    from mrc.sandbox.traffic import Traffic

    traffic = Traffic(ctx.obj)
    made = read_moves(moves)
    drained = False
    if drain_s is not None:
        traffic.stop_producers()
        drained = traffic.drain(drain_s)
    verdict = traffic.judge(made, drained=drained)
    emit(ctx, verdict, table=verdict_table)
    for reason in verdict.reasons:
        click.echo(f"broken: {reason}", err=True)
    if drain_s is not None and not drained:
        click.echo(f"the groups did not finish within {drain_s:g} s", err=True)
    if not verdict.ok or (drain_s is not None and not drained):
        ctx.exit(Exit.FINDINGS)


def verdict_table(verdict: Verdict) -> Table:
    """Return a row per move, and one for what was acknowledged after the last."""
    columns = ("move", ">acked before", ">lost", ">of them tail", ">skipped", ">read again", ">resent", ">write block s", ">RTO s", "kept")
    rows: list[tuple[object, ...]] = [
        (
            f"{move.kind} {move.source} to {move.target}",
            move.acked,
            move.lost,
            move.unreplicated_tail,
            move.skipped,
            ", ".join(f"{group} {count}" for group, count in move.reread_per_group.items()),
            move.resent,
            move.write_block_s,
            move.rto_s,
            "yes" if move.ok else "no",
        )
        for move in verdict.moves
    ]
    rows.append(("since then", verdict.acked_after, verdict.lost_after, *[None] * 7))
    return grid(columns, rows)


def read_moves(path: Path | None) -> list[Move]:
    """Return the moves that a file tells of, none without one. Raises ``BAD_REQUEST``."""
    import msgspec

    from mrc.core.errors import MrcError
    from mrc.core.model import decode
    from mrc.sandbox.judge import Move

    if path is None:
        return []
    try:
        return decode(path.read_bytes(), list[Move])
    except msgspec.DecodeError as error:
        raise MrcError("BAD_REQUEST", f"not a list of moves: {error}", where=str(path)) from error

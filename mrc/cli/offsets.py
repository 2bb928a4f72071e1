"""``mrc offsets``: positions of consumer groups, translated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mrc.cli.exits import Exit
from mrc.cli.inspecting import diff, explain, show, unmovable
from mrc.cli.invocation import invocation
from mrc.cli.output import emit, grid
from mrc.cli.positions import apply_, export, forget, import_
from mrc.cli.standby import cells_of, standby
from mrc.cli.translating import translate

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mrc.core.views import CheckpointView, VerifiedView


@click.group()
def offsets() -> None:
    """Positions of consumer groups, translated between the regions."""


for _command in (show, explain, diff, unmovable, translate, export, import_, apply_, forget):
    offsets.add_command(_command)


@offsets.command("list")
@click.option("--group", default="", help="Of this group only.")
@click.option("--topic", default="", help="On this topic only.")
@click.pass_context
def list_(ctx: click.Context, group: str, topic: str) -> None:
    """List the checkpoints: where each group stands in the source, and where it would go on in the target.

    \b
    Examples:
      mrc offsets list
      mrc offsets list --group billing --topic orders -o json
    """
    from mrc.control.client import Client

    call = invocation(ctx)
    name, region, _ = standby(call)
    with Client(call.settings()) as client:
        found = client.ask_leader(region, "ListCheckpoints", replication_group=name, group=group, topic=topic)
    emit(ctx, found, table=_checkpoints)


def _checkpoints(found: tuple[CheckpointView, ...]) -> RenderableType:
    rows = [
        (c.group, f"{c.topic}-{c.partition}", f"{c.source}->{c.target}", c.source_offset, *cells_of(c.translation), f"{c.age_s:.1f}")
        for c in found
    ]
    return grid(("group", "partition", "flow", ">source offset", ">target offset", "evidence", ">age s"), rows)


@offsets.command()
@click.option("--group", default="", help="Of this group only.")
@click.pass_context
def verify(ctx: click.Context, group: str) -> int:
    """Read both sides around every checkpoint anew and compare the records. Exit code 3 on a disagreement.

    \b
    Examples:
      mrc offsets verify
      mrc offsets verify --group billing
    """
    from mrc.control.client import Client

    call = invocation(ctx)
    name, region, _ = standby(call)
    found: list[VerifiedView] = []
    with Client(call.settings()) as client:
        for one in client.stream_leader(region, "Verify", replication_group=name, group=group):
            found.append(one)
            click.echo(f"\r{len(found)} checkpoints read", nl=False, err=True)
    click.echo("", err=True)
    emit(ctx, found, table=_verified)
    return Exit.FINDINGS if any(one.verdict == "disagrees" for one in found) else Exit.OK


def _verified(found: list[VerifiedView]) -> RenderableType:
    rows = [(v.checkpoint.group, f"{v.checkpoint.topic}-{v.checkpoint.partition}", v.verdict, v.detail) for v in found]
    return grid(("group", "partition", "verdict", "evidence"), rows)

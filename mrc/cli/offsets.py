"""``mrc offsets``: positions of consumer groups, translated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mrc.cli.exits import Exit
from mrc.cli.invocation import Invocation, invocation
from mrc.cli.output import emit, grid

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mrc.core.views import CheckpointView, TranslationView, VerifiedView


@click.group()
def offsets() -> None:
    """Positions of consumer groups, translated between the regions."""


def _standby(call: Invocation) -> tuple[str, str]:
    """Return the replication group and the region whose leader keeps the checkpoints: the one that is not active.

    Raises:
        MrcError: why nobody can say which one that is.
    """
    from mrc.cli.status import gather
    from mrc.core.errors import MrcError

    view = gather(call)
    if view.record is None:
        unread = view.findings[0]
        raise MrcError(unread.code, unread.message, where=unread.where)
    active = view.record.region
    return view.replication_group, next(region.region for region in view.regions if region.region != active)


@offsets.command("list")
@click.option("--group", default="", help="Of this group only.")
@click.option("--topic", default="", help="On this topic only.")
@click.pass_context
def list_(ctx: click.Context, group: str, topic: str) -> None:
    r"""List the checkpoints: where each group stands in the source, and where it would go on in the target.

    \b
    Examples:
      mrc offsets list
      mrc offsets list --group billing --topic orders -o json
    """
    from mrc.control.client import Client

    call = invocation(ctx)
    name, region = _standby(call)
    with Client(call.settings()) as client:
        found = client.ask_leader(region, "ListCheckpoints", replication_group=name, group=group, topic=topic)
    emit(ctx, found, table=_checkpoints)


def _checkpoints(found: tuple[CheckpointView, ...]) -> RenderableType:
    rows = [
        (c.group, f"{c.topic}-{c.partition}", f"{c.source}->{c.target}", c.source_offset, *_answer(c.translation), f"{c.age_s:.1f}")
        for c in found
    ]
    return grid(("group", "partition", "flow", ">source offset", ">target offset", "evidence", ">age s"), rows)


def _answer(answer: TranslationView) -> tuple[str, str]:
    if answer.type == "unknown":
        return "?", f"unknown: {answer.reason}"
    repeats = f", at most {answer.repeats_max} repeat ({answer.reason})" if answer.type == "bounded" else ""
    return str(answer.offset), f"{answer.type}{repeats}"


@offsets.command()
@click.option("--from", "source", required=True, metavar="REGION", help="The region that the offset belongs to.")
@click.option("--topic", required=True, help="By its name in the source.")
@click.option("--partition", required=True, type=click.IntRange(min=0), help="Its number.")
@click.option("--offset", required=True, type=click.IntRange(min=0), help="Next record to read.")
@click.pass_context
def translate(ctx: click.Context, source: str, topic: str, partition: int, offset: int) -> None:
    r"""Translate one offset into the other region's.

    \b
    Examples:
      mrc offsets translate --from east --topic orders --partition 0 --offset 1234
    """
    from mrc.control.client import Client

    call = invocation(ctx)
    name, region = _standby(call)
    with Client(call.settings()) as client:
        answer = client.ask_leader(
            region, "Translate", replication_group=name, source=source, topic=topic, partition=partition, offset=offset
        )
    emit(ctx, answer, table=lambda a: grid((">offset", "evidence", "detail"), [(*_answer(a), a.detail)]))


@offsets.command()
@click.option("--group", default="", help="Of this group only.")
@click.pass_context
def verify(ctx: click.Context, group: str) -> int:
    r"""Read both sides around every checkpoint anew and compare the records. Exit code 3 on a disagreement.

    \b
    Examples:
      mrc offsets verify
      mrc offsets verify --group billing
    """
    from mrc.control.client import Client

    call = invocation(ctx)
    name, region = _standby(call)
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

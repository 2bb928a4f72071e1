"""What executions have left behind: all of them, or the journal of one, from the agents or from a region's archive."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from mrc.cli.invocation import Invocation, invocation
from mrc.cli.moves import executions, way
from mrc.cli.output import emit, grid
from mrc.core.errors import MrcError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mrc.core.views import EntryView, ExecutionView


@click.command()
@click.argument("execution", required=False)
@click.option("--archived", is_flag=True, help="Read the archive in the region's own cluster: no agents, no ZooKeeper.")
@click.option("--region", help="With --archived: the region whose cluster is asked. Each has all that has ended.")
@click.pass_context
def history(ctx: click.Context, execution: str | None, archived: bool, region: str | None) -> None:
    """List the executions; with EXECUTION show its journal.

    Every region's leading agent keeps what has ended in mrc.executions.internal, a compacted topic of its own cluster: --archived
    reads it there on the day on which ZooKeeper is gone.

    \b
    Examples:
      mrc history
      mrc history 1795497709477-3fa2c1
      mrc history --archived --region west
    """
    from mrc.control.client import Client

    call = invocation(ctx)
    if archived != (region is not None):
        raise click.UsageError("--archived and --region belong together", ctx)
    if region is not None:
        _archived(ctx, call, region, execution)
        return
    if execution is None:
        rows = executions(call)[::-1]
        emit(ctx, rows, table=_history_table)
        return
    with Client(call.settings()) as client:
        entries = client.ask_any("GetHistory", execution_id=execution)
    emit(ctx, entries, table=_entries_table)


def _archived(ctx: click.Context, call: Invocation, region: str, execution: str | None) -> None:
    from mrc.core.failover.shown import entry_view, execution_view, unreadable_view
    from mrc.wiring import direct

    settings = call.settings()
    group = call.group(settings)
    found = direct.history(settings, group, region)
    if execution is None:
        rows: list[ExecutionView] = []
        for id, kept in reversed(found.items()):
            try:
                if isinstance(kept, MrcError):
                    raise kept
                rows.append(execution_view(kept.run(), 0))
            except MrcError as error:
                if error.code not in ("GARBLED_RECORD", "VERSION_MISMATCH"):
                    raise
                rows.append(unreadable_view(group.name, id, str(error)))
        emit(ctx, rows, table=_history_table)
        return
    one = found.get(execution)
    if one is None:
        raise MrcError("UNKNOWN_EXECUTION", f"no execution {execution!r} is archived in {region}")
    if isinstance(one, MrcError):
        raise one
    emit(ctx, tuple(entry_view(f"{entry.number:06d}", entry) for entry in one.entries), table=_entries_table)


def _history_table(rows: list[ExecutionView]) -> RenderableType:
    cells = [
        (v.id, v.kind, way(v), v.status, f"{max(0, v.ended_at_ms - v.started_at_ms) / 1000:.2f}", v.actor, v.reason)
        if v.status != "unreadable"
        else (v.id, "", "", v.status, "", "", v.waits_for)
        for v in rows
    ]
    return grid(("execution", "kind", "move", "status", ">s", "actor", "reason"), cells)


def _entries_table(entries: tuple[EntryView, ...]) -> RenderableType:
    cells = [
        (str(e.number), time.strftime("%H:%M:%S", time.localtime(e.at_ms / 1000)), e.agent, str(e.term), e.what, e.step, e.detail)
        if e.what != "unreadable"
        else (str(e.number), "", "", "", e.what, "", e.detail)
        for e in entries
    ]
    return grid((">", "at", "agent", ">term", "what", "step", "detail"), cells)

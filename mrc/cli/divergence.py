"""``mrc divergence``: what failovers have left behind, and what becomes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mrc.cli.exits import Exit
from mrc.cli.invocation import Invocation, invocation
from mrc.cli.output import emit, grid
from mrc.core.errors import MrcError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mrc.core.views import DivergenceView, RecoveryProgressView, RecoveryView

RECOVER_S = 6 * 3600.0
"""How long a command follows a recovery; asked again, it goes on."""

LOOK_S = 60.0


@click.group()
def divergence() -> None:
    """Records that one region has and the other will never get by replication."""


@divergence.command()
@click.pass_context
def show(ctx: click.Context) -> None:
    """Show the divergence ledger: per failover and partition, which offsets stayed behind.

    \b
    Examples:
      mrc divergence show -o json
    """
    emit(ctx, _ledger(invocation(ctx)), table=_divergence_table)


def _ledger(call: Invocation) -> tuple[DivergenceView, ...]:
    from mrc.control.client import Client

    settings = call.settings()
    with Client(settings) as client:
        found: tuple[DivergenceView, ...] = client.ask_any("ListDivergence", replication_group=call.group(settings).name)
    return found


def _divergence_table(found: tuple[DivergenceView, ...]) -> RenderableType:
    rows = [
        (
            d.execution,
            d.region,
            d.state,
            f"{r.topic}-{r.partition}",
            r.begin,
            r.end if r.end >= 0 else "?",
            r.records if r.records >= 0 else "?",
        )
        for d in found
        for r in d.ranges
    ]
    return grid(("failover", "region", "state", "partition", ">begin", ">end", ">records"), rows)


@divergence.command()
@click.argument("failover", required=False)
@click.pass_context
def export(ctx: click.Context, failover: str | None) -> None:
    """Copy what FAILOVER left behind to mrc.recovered.TOPIC in the region that was failed over to, each record once.

    Every copy says in the header `mrc-recovered` where it came from. FAILOVER may be left out where there was one only. Ctrl-C stops it
    between two batches; asked again, it goes on from there. A failback does the same by itself.

    \b
    Examples:
      mrc divergence export
      mrc divergence export 1795596593440-ab8c8b -o json
    """
    _recover(ctx, failover, "export")


@divergence.command()
@click.argument("failover", required=False)
@click.pass_context
def resolve(ctx: click.Context, failover: str | None) -> None:
    """Give every exported record of FAILOVER its fate, by its topic's policy, and count that each has one.

    The policies are in `divergence` of the configuration: quarantine leaves records where they were exported to, append writes all of
    them to their topic again, untouched those whose key nobody has written since the failover. Resumable, as the export is.

    \b
    Examples:
      mrc divergence resolve
    """
    _recover(ctx, failover, "resolve")


def _recover(ctx: click.Context, failover: str | None, doing: str) -> None:
    from mrc.control.client import Client

    call = invocation(ctx)
    settings = call.settings()
    name = call.group(settings).name
    entry = _named(_ledger(call), failover)
    last: RecoveryProgressView | None = None
    with Client(settings) as client:
        fields = {"replication_group": name, "execution_id": entry.execution, "doing": doing}
        for progress in client.stream_leader(entry.region, "RecoverDivergence", deadline_s=RECOVER_S, **fields):
            if last is None or progress.done != last.done:
                click.echo(f"{progress.doing}: {progress.done} of {progress.total} records", err=True)
            last = progress
        found = client.ask_leader(entry.region, "DivergenceStatus", deadline_s=LOOK_S, replication_group=name)
    emit(ctx, tuple(one for one in found if one.execution == entry.execution), table=_status_table)


def _named(found: tuple[DivergenceView, ...], failover: str | None) -> DivergenceView:
    """Return the named entry, or the only one that there is."""
    wanted = [one for one in found if failover in (None, one.execution)]
    if len(wanted) != 1:
        known = ", ".join(one.execution for one in found) or "none"
        raise MrcError("UNKNOWN_EXECUTION", f"name one of the failovers in the divergence ledger: {known}")
    return wanted[0]


@divergence.command()
@click.pass_context
def status(ctx: click.Context) -> int:
    """Show what has become of divergent records: exported, re-emitted, superseded, quarantined, per partition.

    Exit code 3 while some are not accounted for and still may be; those of a region that was rebuilt before are `lost`.

    \b
    Examples:
      mrc divergence status
      mrc divergence status -o json | jq '.[] | select(.accounted | not) | .execution'
    """
    from mrc.cli.standby import standby
    from mrc.control.client import Client

    call = invocation(ctx)
    name, region, _ = standby(call)
    with Client(call.settings()) as client:
        found = client.ask_leader(region, "DivergenceStatus", deadline_s=LOOK_S, replication_group=name)
    emit(ctx, found, table=_status_table)
    return Exit.OK if all(one.accounted or one.state == "lost" for one in found) else Exit.FINDINGS


def _status_table(found: tuple[RecoveryView, ...]) -> RenderableType:
    rows = [
        (
            view.execution,
            view.state,
            f"{p.topic}-{p.partition}",
            p.policy,
            p.divergent,
            p.exported,
            p.emitted,
            p.superseded,
            p.quarantined,
            p.divergent - p.emitted - p.superseded - p.quarantined,
        )
        for view in found
        for p in view.partitions
    ]
    columns = (">divergent", ">exported", ">re-emitted", ">superseded", ">quarantined", ">unexplained")
    sums = grid(("failover", "state", "partition", "policy", *columns), rows)
    told = [
        (f"{p.topic}-{p.partition} @ {one.offset}", f"{p.topic}-{one.by_partition} @ {one.by_offset}")
        for view in found
        for p in view.partitions
        for one in p.superseded_by
    ]
    if not told:
        return sums
    from rich.console import Group
    from rich.text import Text

    return Group(sums, Text(), grid(("superseded, the first of each partition", "by"), told))

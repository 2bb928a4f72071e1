"""``mrc gate``: whether a region's brokers may be started for applications."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mrc.cli.exits import Exit
from mrc.cli.invocation import Invocation, invocation
from mrc.cli.output import emit, grid
from mrc.core.errors import MrcError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from mrc.config import Settings
    from mrc.wiring.gate import Gate


def _groups(call: Invocation, settings: Settings, region: str) -> list[str]:
    """Return the active-passive replication groups that the region's brokers serve; the one that is named, where one is."""
    settings.region(region)
    named = [call.group(settings)] if call.replication_group is not None else settings.replication_groups
    found = [group for group in named if any(region in (flow.source, flow.target) for flow in group.flows)]
    if not found:
        raise MrcError("UNKNOWN_REGION", f"{region} is not a region of {', '.join(group.name for group in named)}")
    moved = [group.name for group in found if group.mode == "active-passive"]
    if not moved:
        message = f"{', '.join(group.name for group in found)}: active-active, written in every region; {region} needs no gate for that"
        raise MrcError("MODE_NOT_SUPPORTED", message)
    return moved


def _table(gates: Sequence[Gate]) -> Table:
    rows = [
        (g.replication_group, g.region, "yes" if g.open else "no", f"{g.active} {g.state}", str(g.epoch), str(g.refusals)) for g in gates
    ]
    return grid(("replication group", "region", "open", "the record says", ">epoch", ">refusals noted"), rows)


@click.command()
@click.argument("region")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0.1, max=3600),
    default=60.0,
    show_default=True,
    metavar="S",
    help="How long to wait for a majority of ZooKeeper.",
)
@click.pass_context
def gate(ctx: click.Context, region: str, timeout_s: float) -> int:
    """Say before REGION's brokers start whether applications may reach them; for start scripts.

    Reads the active-region record, with a majority of ZooKeeper, and asks neither agents nor Kafka. Without --replication-group
    it asks for all active-passive ones that the region has.

    Exit code 0: the record names the region open; start. 3: it does not; start without the applications' listener until
    `mrc status` shows the region fenced. Any other: it could not be read in time (1), or there is none (2); do not start.

    \b
    Examples:
      mrc gate east --timeout 120
    """
    from mrc.core.model import Region
    from mrc.wiring.gate import ask_all

    call = invocation(ctx)
    settings = call.settings()
    gates = ask_all(settings, _groups(call, settings, region), Region(region), timeout_s)
    emit(ctx, gates, table=_table)
    closed = [one for one in gates if not one.open]
    for one in closed:
        told = f"{one.replication_group}: the record says {one.active} {one.state}, epoch {one.epoch}, so {region} is not open"
        click.echo(f"{told}: start its brokers without the applications' listener until `mrc status` shows it fenced", err=True)
    return Exit.FINDINGS if closed else Exit.OK

"""``mrc init`` and ``mrc unmanage``: a running MirrorMaker 2 estate becomes mrc's, and is given back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from mrc.cli.exits import Exit
from mrc.cli.invocation import invocation
from mrc.cli.output import console, emit, grid

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mrc.core.failover.adoption import AdoptionPlan
    from mrc.core.views import FindingView


class Shown(msgspec.Struct, frozen=True):
    """What both commands answer with.

    Attributes:
        acts: what is to be done; after it was done, what was done.
        paused_ms: for how long nothing copied the unit; -1: copying was not interrupted, or nothing was done.
        unproved: partitions whose last copy was not found in the source where the connector says that it had ended.
        fence: the standby's, with its evidence.
    """

    replication_group: str
    region: str
    done: bool
    acts: tuple[str, ...]
    findings: tuple[FindingView, ...] = ()
    paused_ms: int = -1
    unproved: tuple[str, ...] = ()
    fence: str = ""


def _table(shown: Shown) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [Text(f"{shown.replication_group}: {'done' if shown.done else 'would be done'}", style="bold")]
    parts += [Text(f"{number:2}. {act}") for number, act in enumerate(shown.acts, 1)]
    if shown.paused_ms >= 0:
        parts.append(Text(f"nothing was copied for {shown.paused_ms / 1000:.1f} s"))
    if shown.unproved:
        parts.append(Text(f"the last copy was not found where the connector says that it had ended: {', '.join(shown.unproved)}"))
    if shown.fence:
        parts.append(Text(f"fence: {shown.fence}"))
    if shown.findings:
        rows = [(f.code, f.severity, f.message, f.where) for f in shown.findings]
        parts += [Text(), grid(("finding", "severity", "what", "where"), rows)]
    return Group(*parts)


def _agreed(ctx: click.Context, plan: Shown, *, yes: bool, dry_run: bool, does: str) -> int | None:
    """Show the plan where somebody has to read it, and ask; return the exit code where nothing is to be done."""
    refused = any(finding.severity == "error" for finding in plan.findings)
    if refused or dry_run:
        emit(ctx, plan, table=_table)
        return Exit.FINDINGS if refused else Exit.OK
    if not yes:
        if invocation(ctx).output == "table":
            console(invocation(ctx)).print(_table(plan))
        typed = click.prompt(f"type the region's name to {does}", err=True, default="", show_default=False)
        if typed != plan.region:
            raise click.UsageError("the name is not the region's; nothing was changed", ctx)
    return None


def _planned(group: str, region: str, plan: AdoptionPlan) -> Shown:
    return Shown(group, region, done=False, acts=plan.acts, findings=plan.findings)


def _say(line: str) -> None:
    click.echo(f"  {line}", err=True)


_YES = click.option("--yes", is_flag=True, help="Don't ask for the region's name.")
_DRY_RUN = click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")


@click.command()
@click.argument("region")
@_DRY_RUN
@_YES
@click.pass_context
def init(ctx: click.Context, region: str, dry_run: bool, yes: bool) -> int:
    """Make a running MirrorMaker 2 estate mrc's, with REGION open.

    Writes the first active-region record, fences the other region, gives the unit a connector of its own where one copies more than
    the unit, and makes the one for the way back. Nothing is lost or copied twice; copying pauses for seconds where a connector is
    split. Killed, the same command goes on. `mrc unmanage` undoes it. Needs no agent; agents begin when it has ended. Exit code 3
    where something stands against it.

    \b
    Examples:
      mrc init east --dry-run
      mrc init east -g orders
    """
    from mrc.agent import adopting
    from mrc.core.model import Region
    from mrc.wiring.adopting import opened

    call = invocation(ctx)
    settings = call.settings()
    group = call.group(settings)
    with opened(settings, group, region) as outside:
        plan = adopting.plan(outside.estate, Region(region), outside.addresses)
        ended = _agreed(ctx, _planned(group.name, region, plan), yes=yes, dry_run=dry_run, does=f"adopt {group.name} with {region} open")
        if ended is not None or plan.adoption is None:
            return Exit.FINDINGS if ended is None else ended
        report = adopting.adopt(outside.estate, plan.adoption, outside.addresses, _say)
    found = Shown(
        group.name,
        region,
        done=True,
        acts=report.done,
        findings=plan.findings,
        paused_ms=report.paused_ms,
        unproved=report.unproved,
        fence=report.fence,
    )
    emit(ctx, found, table=_table)
    return Exit.OK


@click.command()
@click.argument("region")
@click.option("--keep-connectors", is_flag=True, help="Leave the connectors as they are now.")
@click.option("--remove-topics", is_flag=True, help="Delete mrc's own topics in both regions.")
@click.option("--remove-nodes", is_flag=True, help="Delete what mrc keeps in ZooKeeper, the history too.")
@_DRY_RUN
@_YES
@click.pass_context
def unmanage(
    ctx: click.Context, region: str, keep_connectors: bool, remove_topics: bool, remove_nodes: bool, dry_run: bool, yes: bool
) -> int:
    """Give an estate back: mrc's fences and connectors go, what was there before stays. REGION is the open one.

    Removes the ACLs that mrc added, and gives the unit's topics back to the connector that had them, from where mrc's ended. Consumers'
    positions stay. Killed, the same command goes on. Exit code 3 where something stands against it.

    \b
    Examples:
      mrc unmanage east --dry-run
      mrc unmanage east --remove-topics --remove-nodes
    """
    from mrc.agent import adopting
    from mrc.wiring.adopting import opened

    call = invocation(ctx)
    settings = call.settings()
    group = call.group(settings)
    choice = adopting.Leaving(keep_connectors, remove_topics, remove_nodes)
    with opened(settings, group, region) as outside:
        plan = adopting.release_plan(outside.estate, choice)
        record = outside.estate.store.record()
        if record is not None and record[0].region != region:
            raise click.UsageError(f"{record[0].region} is the open region, not {region}", ctx)
        ended = _agreed(ctx, _planned(group.name, region, plan), yes=yes, dry_run=dry_run, does=f"give {group.name} back")
        if ended is not None or plan.adoption is None:
            return Exit.FINDINGS if ended is None else ended
        report = adopting.release(outside.estate, plan.adoption, choice, _say, last=outside.last)
    found = Shown(
        group.name, region, done=True, acts=report.done, findings=plan.findings, paused_ms=report.paused_ms, unproved=report.unproved
    )
    emit(ctx, found, table=_table)
    return Exit.OK

"""``mrc status`` and ``mrc lag``: every agent is asked at once; each region's and flow's own leader is believed first."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from mrc.cli.exits import Exit
from mrc.cli.invocation import Invocation, invocation
from mrc.cli.output import console, emit, grid
from mrc.core.errors import MrcError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mrc.core.model import Reading
    from mrc.core.views import FlowView, RegionView, StatusView

DEADLINE_S = 1.0


def gather(call: Invocation) -> StatusView:
    """Return one view merged from all agents' answers. Raises what the agents refused with, or ``AGENT_UNREACHABLE``."""
    import msgspec

    from mrc.control.client import Client

    settings = call.settings()
    group = call.group(settings).name
    with Client(settings) as client:
        answers = client.ask_all("Status", deadline_s=DEADLINE_S, replication_group=group)
    views = {answer.asked: answer.view for answer in answers if answer.error is None}
    if not views:
        errors = [answer.error for answer in answers if answer.error is not None]
        raise next((e for e in errors if e.code != "AGENT_UNREACHABLE"), errors[0])
    newest = max(views.values(), key=lambda view: (view.record.epoch if view.record else 0, view.at_ms))
    leaders = {
        asked.region: view for asked, view in views.items() if any(a.leads and a.id == asked.agent for r in view.regions for a in r.agents)
    }
    regions = tuple(_region(leaders.get(region.region, newest), region.region) for region in newest.regions)
    flows = tuple(_flow(leaders.get(flow.target, newest), flow) for flow in newest.flows)
    findings = tuple(dict.fromkeys(finding for view in (newest, *leaders.values()) for finding in view.findings))
    merged: StatusView = msgspec.structs.replace(newest, regions=regions, flows=flows, findings=findings)
    return merged


def _region(view: StatusView, name: str) -> RegionView:
    return next(region for region in view.regions if region.region == name)


def _flow(view: StatusView, flow: FlowView) -> FlowView:
    return next(one for one in view.flows if (one.source, one.target) == (flow.source, flow.target))


@click.command()
@click.option("--watch", is_flag=True, help="Show it again every second, until Ctrl-C.")
@click.pass_context
def status(ctx: click.Context, watch: bool) -> int:
    r"""Show which region is open, fences, flows, lag, checkpoints and leaders, each with its age.

    Answers within two seconds, also with a region dead. Exit code 3 where something stands against a move.

    \b
    Examples:
      mrc status
      mrc status --output json | jq .record.region
    """
    call = invocation(ctx)
    _repeat(ctx, watch, lambda: emit(ctx, gather(call), table=_status_table))
    return Exit.OK if watch or not _unwell(gather(call)) else Exit.FINDINGS


def _unwell(view: StatusView) -> bool:
    return any(finding.severity == "error" for finding in view.findings)


def _repeat(ctx: click.Context, watch: bool, show: Any) -> None:
    show()
    while watch:
        time.sleep(1.0)
        if invocation(ctx).output == "table":
            console(invocation(ctx)).clear()
        try:
            show()
        except MrcError as error:
            click.echo(f"{error}", err=True)


def reading(value: Reading[float], form: str = ".0f", *, now_ms: int = 0) -> str:
    """Return a reading as people see it: the value, or ``?`` with the reason and its age."""
    from mrc.core.model import Known

    if isinstance(value, Known):
        return format(value.value, form)
    age = f" {max(0, now_ms - value.since_ms) / 1000:.0f} s" if now_ms else ""
    return f"? {value.reason}{age}"


def _status_table(view: StatusView) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    record = view.record
    head = f"{view.replication_group} ({view.policy}, {view.mode})  "
    head += f"{record.region} is {record.state}, epoch {record.epoch}" if record else "no active-region record"
    now = view.at_ms
    regions = [
        (
            region.region,
            region.role,
            reading(region.kafka, ".0f", now_ms=now),
            reading(region.connect, ".0f", now_ms=now),
            f"{region.fence.state}: {region.fence.detail}",
            f"{region.leader or '!'} (term {region.term})",
            ", ".join(agent.id for agent in region.agents) or "!",
        )
        for region in view.regions
    ]
    flows = [
        (
            f"{flow.source}->{flow.target}",
            flow.wanted,
            f"{flow.connector_state} {','.join(flow.tasks)}".strip(),
            reading(flow.lag_records, now_ms=now) if flow.wanted != "stopped" else "-",
            reading(flow.lag_seconds, ".1f", now_ms=now) if flow.wanted != "stopped" else "-",
            flow.rpo if flow.wanted != "stopped" else "-",
            f"{flow.exact}/{flow.checkpoints}",
            reading(flow.checkpoint_age_s, ".1f", now_ms=now) if flow.checkpoints else "-",
        )
        for flow in view.flows
    ]
    parts: list[RenderableType] = [
        Text(head, style="bold"),
        grid(("region", "role", ">Kafka ms", ">Connect ms", "fence", "leader", "agents"), regions),
        Text(),
        grid(("flow", "wanted", "connector", ">lag", ">lag s", "a failover now loses", ">exact", ">age s"), flows),
    ]
    if view.execution:
        parts += [Text(), Text(f"execution {view.execution} is running: mrc watch {view.execution}")]
    if view.findings:
        parts += [Text(), grid(("finding", "severity", "what", "where"), [(f.code, f.severity, f.message, f.where) for f in view.findings])]
    return Group(*parts)


@click.command()
@click.option("--watch", is_flag=True, help="Show it again every second, until Ctrl-C.")
@click.pass_context
def lag(ctx: click.Context, watch: bool) -> None:
    r"""Show how far each flow is behind, per partition, in records and seconds.

    A position is read before its log's end, so lag is never negative; what cannot be read is shown as `?` with the reason.

    \b
    Examples:
      mrc lag
      mrc lag --watch
    """
    call = invocation(ctx)
    _repeat(ctx, watch, lambda: emit(ctx, _lags(call), table=_lag_table))


def _lags(call: Invocation) -> list[FlowView]:
    from mrc.control.client import Client

    settings = call.settings()
    group = call.group(settings)
    found: list[FlowView] = []
    failed: list[MrcError] = []
    with Client(settings) as client:
        for region in dict.fromkeys(flow.target for flow in group.flows):
            try:
                found += client.ask_leader(region, "Lag", deadline_s=DEADLINE_S, replication_group=group.name)
            except MrcError as error:
                failed.append(error)
    if not found:
        raise failed[0]
    return found


def _lag_table(flows: list[FlowView]) -> RenderableType:
    rows = [
        (
            f"{flow.source}->{flow.target}",
            f"{p.topic}-{p.partition}",
            reading(p.source_end),
            reading(p.replicated),
            reading(p.lag_records),
            reading(p.lag_seconds, ".2f"),
        )
        for flow in flows
        for p in flow.partitions
    ]
    return grid(("flow", "partition", ">source end", ">replicated", ">lag", ">lag s"), rows)

"""``mrc status`` and ``mrc lag``: every agent is asked at once; each region's and flow's own leader is believed first."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from mrc.cli.exits import Exit
from mrc.cli.invocation import Invocation, invocation
from mrc.cli.output import console, emit, grid
from mrc.core.errors import MrcError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mrc.config import FlowSettings
    from mrc.core.model import ActiveRecord, Reading
    from mrc.core.views import FlowView, RegionView, StatusView

DEADLINE_S = 1.0

RECORD_WAIT_S = 5.0
"""How long a command that needs the active-region record, and is not as hurried as `mrc status`, asks for it."""

LAG_DEADLINE_S = 2.5
"""Longer than `mrc status` takes: the leader of a flow that stands by looks at Connect and at its source anew."""


def gather(call: Invocation) -> StatusView:
    """Return one view merged from all agents' answers. Raises what the agents refused with, or ``AGENT_UNREACHABLE``."""
    import msgspec

    from mrc.control.client import Client, worst

    settings = call.settings()
    group = call.group(settings).name
    with Client(settings) as client:
        answers = client.ask_all("Status", deadline_s=DEADLINE_S, replication_group=group)
    views = {answer.asked: answer.view for answer in answers if answer.error is None}
    if not views:
        raise worst(answers)
    newest = max(views.values(), key=lambda view: (view.record.epoch if view.record else 0, view.at_ms))
    leaders = {
        asked.region: view for asked, view in views.items() if any(a.leads and a.id == asked.agent for r in view.regions for a in r.agents)
    }
    regions = tuple(_region(leaders.get(region.region, newest), region.region) for region in newest.regions)
    flows = tuple(_flow(leaders.get(flow.target, newest), flow) for flow in newest.flows)
    findings = tuple(dict.fromkeys(finding for view in (newest, *leaders.values()) for finding in view.findings))
    merged: StatusView = msgspec.structs.replace(newest, regions=regions, flows=flows, findings=findings)
    return merged


def active(call: Invocation) -> tuple[StatusView, ActiveRecord]:
    """Return what `gather` does, with the active-region record; ask again for `RECORD_WAIT_S` where a slow ensemble keeps it back.

    Raises:
        MrcError: why nobody can read the record.
    """
    until_s = time.monotonic() + RECORD_WAIT_S
    while True:
        try:
            view = gather(call)
            if view.record is not None:
                return view, view.record
            why = next((one for one in view.findings if one.severity == "error"), None)
            error = (
                MrcError(why.code, why.message, where=why.where)
                if why
                else MrcError("NO_ACTIVE_RECORD", "there is no active-region record")
            )
        except MrcError as failed:
            error = failed
        if error.code not in ("ZOOKEEPER_UNREACHABLE", "AGENT_UNREACHABLE") or time.monotonic() > until_s:
            raise error
        time.sleep(0.1)


def _region(view: StatusView, name: str) -> RegionView:
    return next(region for region in view.regions if region.region == name)


def _flow(view: StatusView, flow: FlowView) -> FlowView:
    return next(one for one in view.flows if (one.source, one.target) == (flow.source, flow.target))


@click.command()
@click.option("--watch", is_flag=True, help="Show it again every second, until Ctrl-C.")
@click.pass_context
def status(ctx: click.Context, watch: bool) -> int:
    """Show which region is open, fences, flows, lag, checkpoints and leaders, each with its age.

    Answers within two seconds, also with a region dead. Exit code 3 where something stands against a move.

    \b
    Examples:
      mrc status
      mrc status --output json | jq .record.region
    """
    call = invocation(ctx)
    unwell = False

    def show() -> None:
        nonlocal unwell
        view = gather(call)
        unwell = any(finding.severity == "error" for finding in view.findings)
        emit(ctx, view, table=_status_table)

    _repeat(ctx, watch, show)
    return Exit.FINDINGS if unwell and not watch else Exit.OK


def _repeat(ctx: click.Context, watch: bool, show: Callable[[], None]) -> None:
    """Show it; with ``watch`` again every second, whatever fails meanwhile, until Ctrl-C, which is no failure then."""
    show()
    try:
        while watch:
            time.sleep(1.0)
            if invocation(ctx).output == "table":
                console(invocation(ctx)).clear()
            try:
                show()
            except MrcError as error:
                click.echo(f"{error}", err=True)
    except KeyboardInterrupt:
        click.echo("", err=True)


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
    absent = "both regions are written" if view.mode == "active-active" else "the active region cannot be read"
    if any(one.code == "NO_ACTIVE_RECORD" for one in view.findings):
        absent = "no active-region record"
    head += f"{record.region} is {record.state}, epoch {record.epoch}" if record else absent
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
    """Show how far each flow is behind, per topic and partition, in records and seconds.

    Each flow is measured by the leading agent of its target. A position is read before its log's end, so lag is never
    negative; a tail without visible records is lag 0; what cannot be read is shown as `?` with the reason and since when.
    A flow that stands by copies nothing: its stored position and its source's live end are shown.

    \b
    Examples:
      mrc lag
      mrc lag --watch
      mrc lag -o json | jq '.[] | {source, target, rpo, lag: .lag_records.value}'
    """
    call = invocation(ctx)
    _repeat(ctx, watch, lambda: emit(ctx, _lags(call), table=_lag_table))


def _lags(call: Invocation) -> list[FlowView]:
    """Return every configured flow, one whose target's leader gave no answer with Unknown readings.

    Raises:
        MrcError: what the agents refused with where no leader answered; ``AGENT_UNREACHABLE`` where no agent was there.
    """
    from mrc.control.client import Client, worst

    settings = call.settings()
    group = call.group(settings)
    targets = {flow.target for flow in group.flows}
    with Client(settings) as client:
        there = [agent for agent in client.agents if agent.region in targets]
        answers = client.ask_all("Lag", deadline_s=LAG_DEADLINE_S, agents=there, replication_group=group.name)
    found = {(view.source, view.target): view for answer in answers if answer.error is None for view in answer.view}
    if not found:
        raise worst(answers)
    refused = {region: worst([answer for answer in answers if answer.asked.region == region]) for region in targets}
    return [found.get((flow.source, flow.target)) or _unmeasured(flow, refused[flow.target]) for flow in group.flows]


def _unmeasured(flow: FlowSettings, error: MrcError) -> FlowView:
    """Return a flow of which nothing could be read."""
    from mrc.core.model import Unknown
    from mrc.core.views import FlowView

    why = Unknown(error.reason, str(error), _now_ms())
    rpo = f"unknown: {why.reason}"
    return FlowView(flow.source, flow.target, flow.connector, "unknown", "UNKNOWN", (), str(error), why, why, rpo, why, 0, 0, ())


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _lag_table(flows: list[FlowView]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    now_ms = _now_ms()
    totals = [
        (
            f"{flow.source}->{flow.target}",
            flow.wanted,
            f"{flow.connector_state} {','.join(flow.tasks)}".strip(),
            reading(flow.lag_records, now_ms=now_ms),
            reading(flow.lag_seconds, ".2f", now_ms=now_ms),
            flow.rpo,
        )
        for flow in flows
    ]
    rows = [
        (
            f"{flow.source}->{flow.target}",
            p.topic,
            p.partition,
            reading(p.source_end, now_ms=now_ms),
            reading(p.replicated, now_ms=now_ms),
            reading(p.lag_records, now_ms=now_ms),
            reading(p.lag_seconds, ".2f", now_ms=now_ms),
        )
        for flow in flows
        for p in flow.partitions
    ]
    return Group(
        grid(("flow", "wanted", "connector", ">lag", ">lag s", "a failover now loses"), totals),
        Text(),
        grid(("flow", "topic", ">partition", ">source end", ">replicated", ">lag", ">lag s"), rows),
    )

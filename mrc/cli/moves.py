"""Moves: plan, start, follow, approve, abort. A fence is one that moves nothing."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypedDict, Unpack

import click

from mrc.cli.exits import Exit
from mrc.cli.invocation import Invocation, invocation
from mrc.cli.output import console, emit, grid
from mrc.cli.status import reading
from mrc.core.errors import MrcError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mrc.config import Settings
    from mrc.core.views import CheckpointView, ExecutionView, FindingView, PlanView, StepView

FOLLOW_S = 3600.0
POSITIONS_MAX = 200
"""How many positions a plan shows for people."""

RECONNECT_S = 60.0
"""How long a command looks for an agent again while it follows an execution."""

_ENDED = ("succeeded", "aborted", "superseded", "unreadable")

_PERHAPS = "nobody has said whether the move was begun: `mrc history` shows it, and the same command with --token {token} answers with it"


def _plan(call: Invocation, kind: str, region: str, *, attested: bool, instead: bool, restarted: bool) -> PlanView:
    from mrc.control.client import Client

    settings = call.settings()
    name = call.group(settings).name
    with Client(settings) as client:
        found: PlanView = client.ask_leader(
            region,
            "Plan",
            deadline_s=20.0,
            replication_group=name,
            kind=kind,
            target=region,
            attested=attested,
            allow_data_loss=instead,
            producers_restarted=restarted,
        )
    return _with_lines(found, settings)


def _with_lines(view: PlanView, settings: Settings) -> PlanView:
    """Return the plan with the file and line of what is wrong with its runbook, where the agent's file is here too: the hash tells."""
    if not any(finding.code == "RUNBOOK_INVALID" for finding in view.findings):
        return view
    import hashlib

    import msgspec

    from mrc.cli.runbook import located
    from mrc.config import runbook_folder

    path = runbook_folder(settings.replication_group(view.replication_group)) / f"{view.kind}.yaml"
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != view.runbook_hash:
        return view
    findings = tuple(
        msgspec.structs.replace(finding, where=located(path, finding.where)) if finding.code == "RUNBOOK_INVALID" else finding
        for finding in view.findings
    )
    with_lines: PlanView = msgspec.structs.replace(view, findings=findings)
    return with_lines


def way(view: PlanView | ExecutionView) -> str:
    """Return from where to where a move goes; a fence stays where it is."""
    return view.source if view.kind == "fence" else f"{view.source} -> {view.target}"


def _regions_of_fence(ctx: click.Context, region: str | None) -> tuple[str, str]:
    """Return the open region, which a fence closes, and the other one, from where that is done.

    Raises:
        click.UsageError: ``region`` is given and is not the open one.
        MrcError: why the active-region record cannot be read; ``AGENT_UNREACHABLE``.
    """
    from mrc.cli.status import active

    call = invocation(ctx)
    settings = call.settings()
    names = {name for flow in call.group(settings).flows for name in (flow.source, flow.target)}
    if region is not None and region not in names:
        raise MrcError("UNKNOWN_REGION", f"no region {region!r}; there are: {', '.join(sorted(names))}")
    source = str(active(call)[1].region)
    if region not in (None, source):
        raise click.UsageError(f"{source} is the open region, not {region}: a fence closes the open one", ctx)
    return source, next(name for name in names if name != source)


def plan_table(view: PlanView) -> RenderableType:
    """Return a plan for people: its steps, what it may lose, what stands against it, the positions."""
    from rich.console import Group
    from rich.text import Text

    steps = [
        (str(n), s.name, "yes" if s.approval else "", "no return" if s.point_of_no_return else "", s.evidence)
        for n, s in enumerate(view.steps, 1)
    ]
    epoch = f"epoch {view.epoch}" if view.kind == "rebuild" else f"epoch {view.epoch} -> {view.epoch + 1}"
    parts: list[RenderableType] = [
        Text(f"{view.kind} of {view.replication_group}: {way(view)}, {epoch}", style="bold"),
        grid((">", "step", "approval", "", "what it does"), steps),
    ]
    if view.expected_loss:
        rows = [(f"{p.topic}-{p.partition}", f"at least {reading(p.records)}") for p in view.expected_loss]
        parts += [Text(), grid(("partition", "expected loss, as of the last look"), rows)]
    if view.findings:
        parts += [Text(), grid(("finding", "severity", "what", "where"), [(f.code, f.severity, f.message, f.where) for f in view.findings])]
    if view.positions:
        shown = [_position_cells(one) for one in view.positions[:POSITIONS_MAX]]
        parts += [Text(), grid(("group", "partition", f">in {view.source}", f">in {view.target}", "how", ">age s"), shown)]
        if len(view.positions) > POSITIONS_MAX:
            parts.append(Text(f"and {len(view.positions) - POSITIONS_MAX} more: --output json has them all"))
    return Group(*parts)


def _position_cells(one: CheckpointView) -> tuple[str, ...]:
    """Where a group would begin: what a person commits who has to finish a move by hand."""
    said = one.translation
    if said.type in ("exact", "bounded"):
        how = said.type if said.type == "exact" else f"bounded: up to {said.repeats_max} again"
        there = str(said.offset)
    else:
        how = f"{'the last one that was safe' if one.floor >= 0 else 'none'}: {said.reason}"
        there = str(one.floor) if one.floor >= 0 else "-"
    return (one.group, f"{one.topic}-{one.partition}", str(one.source_offset), there, how, f"{one.age_s:.1f}")


_RESTARTED = click.option(
    "--attest-producers-restarted",
    is_flag=True,
    help="You see to it that producers are started anew which a redirect would carry along: stop them, then approve the step route.",
)


@click.command()
@click.argument("kind", type=click.Choice(["switchover", "failover", "fence", "failback", "rebuild"]))
@click.argument("region", required=False)
@click.option("--attest-dead", is_flag=True, help="Plan as if a person had attested that the other region is dead.")
@click.option(
    "--allow-data-loss",
    is_flag=True,
    help="Plan a failover in the place of the move that is running, or a rebuild that deletes topics with records.",
)
@_RESTARTED
@click.pass_context
def plan(
    ctx: click.Context, kind: str, region: str | None, attest_dead: bool, allow_data_loss: bool, attest_producers_restarted: bool
) -> int:
    """Show what a move to REGION would do now, with everything that stands against it. Touches nothing.

    It ends with where every group would begin: printed or kept, it is what a person needs who has to finish a move by hand.
    Exit code 3 where a finding forbids the move. A fence names the open region, or none.

    \b
    Examples:
      mrc plan switchover west
      mrc plan failover west --attest-dead
      mrc plan fence
      mrc plan rebuild east
    """
    if kind == "fence":
        region = _regions_of_fence(ctx, region)[1]
    if region is None:
        raise click.UsageError("Missing argument 'REGION'.", ctx)
    view = _plan(invocation(ctx), kind, region, attested=attest_dead, instead=allow_data_loss, restarted=attest_producers_restarted)
    emit(ctx, view, table=plan_table)
    return Exit.FINDINGS if any(f.severity == "error" for f in view.findings) else Exit.OK


def _move(
    ctx: click.Context,
    kind: str,
    region: str,
    *,
    yes: bool,
    wait: bool,
    reason: str,
    token: str | None,
    attested: bool = False,
    instead: bool = False,
    restarted: bool = False,
    closes: str = "",
) -> int:
    """Show before, ask, start, follow, show after.

    Args:
        closes: the region that a fence closes from ``region``; it is the one whose name is asked for.
    """
    call = invocation(ctx)
    from mrc.control.client import Client

    settings = call.settings()
    name = call.group(settings).name
    view = _plan(call, kind, region, attested=attested, instead=instead, restarted=restarted)
    errors = [f for f in view.findings if f.severity == "error"]
    if call.output == "table" and (errors or not yes):
        console(call).print(plan_table(view))
    if not errors and not yes:
        does = f"close {closes} to writers" if closes else f"rebuild {region}" if kind == "rebuild" else f"move to {region}"
        typed = click.prompt(f"type the region's name to {does}", err=True, default="", show_default=False)
        if typed != (closes or region):
            raise click.UsageError("the name is not the region's; nothing was started", ctx)
    token = token or secrets.token_hex(8)
    with Client(settings) as client:
        try:
            execution: ExecutionView = client.ask_leader(
                region,
                "StartMove",
                deadline_s=30.0,
                replication_group=name,
                kind=kind,
                target=region,
                token=token,
                reason=reason,
                attested=attested,
                allow_data_loss=instead,
                producers_restarted=restarted,
            )
        except KeyboardInterrupt:
            click.echo(f"\n{_PERHAPS.format(token=token)}", err=True)
            return Exit.RUNNING
        except MrcError as error:
            if error.code == "AGENT_UNREACHABLE":
                click.echo(_PERHAPS.format(token=token), err=True)
            raise _placed(error, errors) from None
        if not wait:
            emit(ctx, execution, table=_execution_table)
            return _left_running(execution.id)
        return _follow(ctx, client, execution.id, region, until_fenced=bool(closes))


def _placed(error: MrcError, findings: list[FindingView]) -> MrcError:
    """Return the agent's refusal with the places of the findings that it speaks of, as the plan has shown them."""
    places = dict.fromkeys(finding.where for finding in findings if finding.code == error.code and finding.where)
    return MrcError(error.code, error.message, where=", ".join(places), retryable=error.retryable) if places else error


def _follow(ctx: click.Context, client: object, execution: str, region: str, *, until_fenced: bool = False) -> int:
    """Say each change of a step until the execution has ended; an agent that dies meanwhile is replaced by the other.

    Args:
        until_fenced: leave it where a fence is in force: it stays until somebody approves its end, perhaps for days.
    """
    from mrc.control.client import Client

    assert isinstance(client, Client)  # noqa: S101 - imported late, for quick help
    said: set[tuple[str, str]] = set()
    last: ExecutionView | None = None
    lost_at_s: float | None = None
    try:
        while last is None or last.status not in _ENDED:
            try:
                for view in client.watch(execution, region):
                    last, lost_at_s = view, None
                    _say(view, said)
                    if until_fenced and _in_force(view) is not None:
                        emit(ctx, view, table=_execution_table)
                        return Exit.RUNNING
                    if view.status in _ENDED:
                        break
            except MrcError as error:
                if error.code not in ("AGENT_UNREACHABLE", "ZOOKEEPER_UNREACHABLE", "NOT_LEADER"):
                    raise
                lost_at_s = lost_at_s or time.monotonic()
                if time.monotonic() - lost_at_s > RECONNECT_S:
                    # No answer is no failure: what the journal says goes on as soon as an agent leads there.
                    click.echo(f"nobody has answered for {RECONNECT_S:g} s: {error}", err=True)
                    return _left_running(execution)
                time.sleep(0.5)
    except KeyboardInterrupt:
        click.echo("", err=True)
        return _left_running(execution)
    emit(ctx, last, table=_execution_table)
    return Exit.OK if last.status == "succeeded" else Exit.WORLD


def _left_running(execution: str) -> int:
    click.echo(f"still running, execution {execution}; re-attach with `mrc watch {execution}`", err=True)
    return Exit.RUNNING


def _in_force(view: ExecutionView) -> StepView | None:
    """Return the step that waits to open the source again behind a proved fence; None otherwise, also where that step has failed."""
    steps = {step.action: step for step in view.steps}
    fenced, last = steps.get("fence-source"), steps.get("reopen-source")
    if view.status != "waiting" or fenced is None or last is None:
        return None
    return last if fenced.state == "done" and view.waits_for.startswith(f"approval of step {last.name}") else None


def _say(view: ExecutionView, said: set[tuple[str, str]]) -> None:
    for step in view.steps:
        if step.state in ("done", "undone") and (step.name, step.state) not in said:
            said.add((step.name, step.state))
            click.echo(f"{step.elapsed_ms / 1000:7.2f} s  {step.name}: {step.evidence or step.state}", err=True)
    if view.status == "waiting" and ("waits", view.waits_for) not in said:
        said.add(("waits", view.waits_for))
        if _in_force(view) is not None:
            click.echo(f"  {view.source} is closed to writers until `mrc approve {view.id}` lets it open again", err=True)
            return
        click.echo(f"  waits: {view.waits_for}; `mrc approve {view.id}` goes on, `mrc abort {view.id}` undoes", err=True)


def _execution_table(view: ExecutionView) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    took_s = ((view.ended_at_ms or view.started_at_ms) - view.started_at_ms) / 1000
    head = f"{view.kind} {way(view)}: {view.status}" + (f" after {took_s:.2f} s" if view.ended_at_ms else "")
    rows = [(s.name, s.state, f"{s.elapsed_ms / 1000:.2f}", s.evidence) for s in view.steps]
    return Group(Text(head, style="bold"), grid(("step", "state", ">s", "evidence"), rows))


_YES = click.option("--yes", is_flag=True, help="Don't ask for the region's name.")
_WAIT = click.option("--wait/--no-wait", default=True, help="Follow it until it has ended.")
_REASON = click.option("--reason", default="", help="Why; kept in the history.")
_TOKEN = click.option("--token", help="Idempotency token: the same one answers with the same execution.")


class _Asked(TypedDict):
    """How a move is begun and followed: the options of `_begins_a_move`."""

    yes: bool
    wait: bool
    reason: str
    token: str | None


def _begins_a_move(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command the options that each one has which begins a move."""
    return _YES(_WAIT(_REASON(_TOKEN(command))))


@click.command()
@click.argument("region")
@_begins_a_move
@_RESTARTED
@click.pass_context
def switchover(ctx: click.Context, region: str, attest_producers_restarted: bool, **asked: Unpack[_Asked]) -> int:
    """Move the unit to REGION while both regions are alive: nothing lost, skipped or processed twice.

    Ctrl-C leaves it running; exit code 4 then, and how to re-attach.

    \b
    Examples:
      mrc switchover west --reason "maintenance of east"
      mrc switchover west --yes --no-wait
    """
    return _move(ctx, "switchover", region, restarted=attest_producers_restarted, **asked)


@click.command()
@click.argument("region")
@_begins_a_move
@_RESTARTED
@click.pass_context
def failback(ctx: click.Context, region: str, attest_producers_restarted: bool, **asked: Unpack[_Asked]) -> int:
    """Go home to REGION after a failover: recover what only REGION has, account for it, then switch over.

    It may be begun while REGION is still on its way back. Exit code 4 where it goes on without the command.

    \b
    Examples:
      mrc failback east --reason "east is back"
    """
    return _move(ctx, "failback", region, restarted=attest_producers_restarted, **asked)


@click.command()
@click.argument("region")
@click.option(
    "--attest-dead",
    is_flag=True,
    help="You made sure that the other region is dead: mrc cannot prove it. Not needed where its agents have fenced it by themselves.",
)
@click.option("--allow-data-loss", is_flag=True, help="End the move that is running as it stands, and fail over in its place.")
@_begins_a_move
@_RESTARTED
@click.pass_context
def failover(
    ctx: click.Context,
    region: str,
    attest_dead: bool,
    allow_data_loss: bool,
    attest_producers_restarted: bool,
    **asked: Unpack[_Asked],
) -> int:
    """Open REGION after the active one has died. States the expected loss per partition before it asks.

    A switchover whose source dies under it, or a move whose target dies after it was opened, can be ended by a failover
    that takes its place (--allow-data-loss): nothing of it is undone, and what it had still to copy is lost to REGION.

    \b
    Examples:
      mrc failover west --attest-dead --reason "east burnt down"
      mrc failover west --attest-dead --allow-data-loss --reason "east died in the middle of the switchover"
    """
    return _move(ctx, "failover", region, attested=attest_dead, instead=allow_data_loss, restarted=attest_producers_restarted, **asked)


@click.command()
@click.argument("region", required=False)
@_begins_a_move
@click.pass_context
def fence(ctx: click.Context, region: str | None, **asked: Unpack[_Asked]) -> int:
    """Close the open region to writers, and keep it so until somebody lets it open again. Nothing else is opened.

    REGION, where it is given, must be the open one. It ends with exit code 4 as soon as every partition's leader is seen to refuse
    writes: the fence stays. `mrc approve` opens the region again, and so does `mrc abort`.

    \b
    Examples:
      mrc fence --reason "the shop writes garbage"
      mrc fence east --yes
    """
    source, other = _regions_of_fence(ctx, region)
    return _move(ctx, "fence", other, closes=source, **asked)


@click.command()
@click.argument("region")
@click.option(
    "--allow-data-loss",
    is_flag=True,
    help="Delete topics of REGION that hold records, also what nobody else may have. Wants a --reason.",
)
@_begins_a_move
@click.pass_context
def rebuild(ctx: click.Context, region: str, allow_data_loss: bool, **asked: Unpack[_Asked]) -> int:
    """Make REGION anew from the open one: topics, ACLs, copies, positions, until a switchover to it would find nothing against it.

    For a region that has come back empty, or that a failback refuses because its log is shorter or a topic was made anew. The open region
    goes on all the while. No topic that holds records is deleted without --allow-data-loss.

    \b
    Examples:
      mrc rebuild east --reason "new disks"
      mrc rebuild east --allow-data-loss --reason "restored from an old copy; what is wanted of it was taken by hand"
    """
    if allow_data_loss and not asked["reason"].strip():
        raise click.UsageError("--allow-data-loss wants a --reason: it is kept in the history", ctx)
    return _move(ctx, "rebuild", region, instead=allow_data_loss, **asked)


def executions(call: Invocation) -> list[ExecutionView]:
    """Return the last executions as agents have them, oldest first."""
    from mrc.control.client import Client

    settings = call.settings()
    with Client(settings) as client:
        found = client.ask_any("ListExecutions", replication_group=call.group(settings).name)
    return list(found)


def _named(call: Invocation, execution: str | None) -> ExecutionView:
    """Return the named execution, or the only one that runs. Raises ``UNKNOWN_EXECUTION``, ``GARBLED_RECORD``."""
    found = executions(call)
    if execution is None:
        running = [one for one in found if one.status not in _ENDED]
        if len(running) != 1:
            raise MrcError("UNKNOWN_EXECUTION", f"{len(running)} executions are running: name one")
        return running[0]
    for one in found:
        if one.id == execution and one.status == "unreadable":
            raise MrcError("GARBLED_RECORD", one.waits_for.removeprefix("GARBLED_RECORD: "))
        if one.id == execution:
            return one
    raise MrcError("UNKNOWN_EXECUTION", f"no execution {execution!r}")


@click.command()
@click.argument("execution", required=False)
@click.pass_context
def watch(ctx: click.Context, execution: str | None) -> int:
    """Follow EXECUTION (else the only one that runs) until it has ended.

    \b
    Examples:
      mrc watch
    """
    from mrc.control.client import Client

    call = invocation(ctx)
    found = _named(call, execution)
    with Client(call.settings()) as client:
        return _follow(ctx, client, found.id, found.target)


def _ask(ctx: click.Context, method: str, execution: str | None, reason: str) -> None:
    from mrc.control.client import Client

    call = invocation(ctx)
    found = _named(call, execution)
    with Client(call.settings()) as client:
        try:
            answer = client.ask_leader(found.target, method, execution_id=found.id, reason=reason)
        except MrcError as error:
            if method != "Abort" or error.code not in ("AGENT_UNREACHABLE", "NOT_LEADER"):
                raise
            # Nobody is left where the unit was to move to: the agent that leads where it comes from undoes the move.
            answer = client.ask_leader(found.source, method, execution_id=found.id, reason=reason)
        emit(ctx, answer, table=_execution_table)


@click.command()
@click.argument("execution", required=False)
@_REASON
@click.pass_context
def approve(ctx: click.Context, execution: str | None, reason: str) -> None:
    """Let a waiting execution go on: begin the step that asks for approval, or try the failed one again.

    \b
    Examples:
      mrc approve --reason "consumers are stopped"
    """
    _ask(ctx, "Approve", execution, reason)


@click.command()
@click.argument("execution", required=False)
@_REASON
@click.pass_context
def abort(ctx: click.Context, execution: str | None, reason: str) -> None:
    """End an execution and undo its steps. Refused once the target has been opened.

    \b
    Examples:
      mrc abort --reason "wrong region"
    """
    _ask(ctx, "Abort", execution, reason)


@click.command()
@click.argument("execution", required=False)
@_REASON
@click.pass_context
def skip(ctx: click.Context, execution: str | None, reason: str) -> None:
    """Let a waiting execution go on without the step that it waits for: routing, the canary, a command of yours.

    A step that a later one needs is not skipped; what is left undone is written to the journal.

    \b
    Examples:
      mrc skip --reason "the load balancer was changed by hand"
    """
    _ask(ctx, "Skip", execution, reason)

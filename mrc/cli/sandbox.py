"""``mrc sandbox``: two real regions on one machine. Progress and talk go to stderr, data to stdout."""

from __future__ import annotations

import collections
import contextlib
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from mrc.cli.exits import Exit
from mrc.cli.output import emit, grid
from mrc.cli.traffic import report

if TYPE_CHECKING:
    from rich.table import Table

    from mrc.sandbox.startup import Progress
    from mrc.sandbox.world import PartStatus, Sandbox

FOLLOW_POLL_S = 0.3
REGION = click.Choice(["east", "west"])


@click.group()
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".mrc-sandbox"),
    envvar="MRC_SANDBOX",
    show_default=True,
    show_envvar=True,
    help="Folder that holds everything of the sandbox.",
)
@click.pass_context
def sandbox(context: click.Context, state: Path) -> None:
    """Two real regions on one machine: brokers, Connect with MirrorMaker 2, ZooKeeper.

    \b
    Examples:
      mrc sandbox up
      mrc sandbox agents start
      eval "$(mrc sandbox env)" && mrc status
      mrc sandbox kill east
      mrc sandbox start east
      mrc sandbox down --wipe
    """
    context.obj = state


@sandbox.command()
@click.option("--brokers", type=click.Choice(["1", "3"]), help="Brokers per region.  [default: 1]")
@click.option("--policy", type=click.Choice(["identity", "default"]), help="MM2's replication policy.  [default: identity]")
@click.option("--mm2-exactly-once/--no-mm2-exactly-once", default=None, help="Whether MM2 copies in transactions.  [default: no]")
@click.option("--active", type=REGION, help="Region that the first active-region record names.  [default: east]")
@click.option("--links/--no-links", default=None, help="Whether regions reach one another through links that can be cut.  [default: no]")
@click.pass_obj
def up(state: Path, /, brokers: str | None, **choices: object) -> None:
    """Start what does not run, and wait until all of it works.

    May be repeated, and may follow a start that was broken off. Options are fixed for the life of the state folder.

    \b
    Examples:
      mrc sandbox up
      mrc sandbox up --policy default --mm2-exactly-once
      mrc sandbox --state /tmp/three up --brokers 3
    """
    import msgspec

    world = _open(state)
    asked = {"brokers": None if brokers is None else int(brokers), **choices}
    options = msgspec.structs.replace(world.options, **{name: value for name, value in asked.items() if value is not None})
    with _progress() as progress:
        world.up(options, progress)
    click.echo(f"up; the configuration is {world.config_path}", err=True)


@sandbox.command()
@click.option("--wipe", is_flag=True, help="Remove data, logs, secrets and ports as well.")
@click.pass_obj
def down(state: Path, *, wipe: bool) -> None:
    """End every process of the sandbox, agents and traffic too. Data and logs stay, unless --wipe.

    \b
    Example:
      mrc sandbox down --wipe
    """
    ended = _open(state).down(wipe=wipe)
    click.echo(f"ended {', '.join(ended)}" if ended else "nothing was running", err=True)


@sandbox.command()
@click.pass_context
def status(ctx: click.Context) -> None:
    """Show every part: process, port, state, memory.

    \b
    Example:
      mrc sandbox status --output json
    """
    emit(ctx, _open(ctx.obj).status(), table=_table)


@sandbox.command()
@click.argument("region", type=REGION)
@click.option("--agents/--no-agents", default=True, show_default=True, help="Whether the region's agents die with it.")
@click.pass_obj
def kill(state: Path, region: str, *, agents: bool) -> None:
    """Kill REGION's brokers, Connect and ZooKeeper server (SIGKILL), and its agents.

    \b
    Example:
      mrc sandbox kill east
    """
    died = _open(state).kill(region, agents=agents)
    click.echo(f"killed {', '.join(died)}" if died else f"nothing of {region} was running", err=True)


@sandbox.command()
@click.argument("region", type=REGION)
@click.pass_obj
def start(state: Path, region: str) -> None:
    """Start REGION's servers again and wait until they work. Agents are started with `mrc sandbox agents start`.

    \b
    Example:
      mrc sandbox start east
    """
    with _progress() as progress:
        _open(state).start(region, progress)
    click.echo(f"{region} is up", err=True)


@sandbox.command()
@click.argument("region", type=REGION)
@click.pass_obj
def cut(state: Path, region: str) -> None:
    """Cut REGION off from the other region and from the witness; inside it everything goes on.

    Nothing is refused and nothing answers, as when the network is gone; what was sent arrives after `mrc sandbox mend`. Needs a
    sandbox that was made with --links. `mrc` itself and the sandbox's traffic stand outside and go on reaching both regions.

    \b
    Examples:
      mrc sandbox up --links
      mrc sandbox cut east
    """
    _open(state).cut(region)
    click.echo(f"{region} is cut off", err=True)


@sandbox.command()
@click.argument("region", type=REGION)
@click.pass_obj
def mend(state: Path, region: str) -> None:
    """End what `mrc sandbox cut` did to REGION.

    \b
    Example:
      mrc sandbox mend east
    """
    _open(state).mend(region)
    click.echo(f"{region} reaches the other sites again", err=True)


@sandbox.group()
def agents() -> None:
    """Start or stop mrc's agents in the sandbox."""


@agents.command("start")
@click.argument("region", type=REGION, required=False)
@click.pass_obj
def start_agents(state: Path, region: str | None) -> None:
    """Start the agents of REGION, or of both, and wait until they answer.

    \b
    Example:
      mrc sandbox agents start
    """
    click.echo(f"agents {', '.join(_open(state).start_agents(region))} run", err=True)


@agents.command("stop")
@click.argument("region", type=REGION, required=False)
@click.pass_obj
def stop_agents(state: Path, region: str | None) -> None:
    """Ask the agents of REGION, or of both, to hand over and end.

    \b
    Example:
      mrc sandbox agents stop east
    """
    ended = _open(state).stop_agents(region)
    click.echo(f"ended {', '.join(ended)}" if ended else "no agent was running", err=True)


@sandbox.group()
def traffic() -> None:
    """Order events: one producer and consumer groups that follow the active region, and log what happened to them."""


traffic.add_command(report)


@traffic.command("start")
@click.option("--rate", type=click.FloatRange(min=0), default=1000.0, show_default=True, help="Events per second; 0: consumers only.")
@click.option(
    "--group", "groups", multiple=True, metavar="NAME[:S]", help="A group and how far it stays behind.  [default: billing, shipping:2]"
)
@click.option("--duration", type=click.FloatRange(min=0, min_open=True), metavar="S", help="End by itself after so many seconds.")
@click.pass_obj
def start_traffic(state: Path, rate: float, groups: tuple[str, ...], duration: float | None) -> None:
    """Start the producer and the consumers that do not run.

    \b
    Example:
      mrc sandbox traffic start --rate 500 --group billing --group shipping:5
    """
    from mrc.sandbox.traffic import DELAYS_S, Traffic

    delays_s = dict(_group_and_delay(wish) for wish in groups) or DELAYS_S
    made = Traffic(state)
    made.start(rate, delays_s, duration_s=duration)
    click.echo(f"traffic runs; its logs are in {made.folder}", err=True)


@traffic.command("stop")
@click.pass_obj
def stop_traffic(state: Path) -> None:
    """End the producer, then the consumers, each cleanly.

    \b
    Example:
      mrc sandbox traffic stop
    """
    from mrc.sandbox.traffic import Traffic

    Traffic(state).stop()


@traffic.command("status")
@click.pass_context
def traffic_status(ctx: click.Context) -> None:
    """Show what was acknowledged and what each group has processed, as the logs say.

    \b
    Example:
      mrc sandbox traffic status --output json
    """
    from mrc.sandbox.traffic import Traffic

    made = Traffic(ctx.obj)
    counts = {"acked": made.acked(), **{f"processed by {group}": made.processed(group) for group in made.groups()}}
    data = {"running": sorted(made.running()), "counts": counts}
    emit(ctx, data, table=lambda _: grid(("events", ">count"), [*counts.items(), ("processes", len(made.running()))]))


@sandbox.command()
@click.argument("part", required=False)
@click.option("--follow", "-f", is_flag=True, help="Go on with what is added, until Ctrl-C.")
@click.option("--tail", type=click.IntRange(min=0), default=20, show_default=True, help="Lines of each log to begin with.")
@click.pass_obj
def logs(state: Path, part: str | None, *, follow: bool, tail: int) -> None:
    """Show what PART printed, or what all parts printed, each line after its part's name.

    \b
    Examples:
      mrc sandbox logs east-connect --tail 100
      mrc sandbox logs -f
    """
    from mrc.core.errors import MrcError

    files = _open(state).logs()
    if part is not None and part not in files:
        raise MrcError("BAD_REQUEST", f"no log of {part!r}; there are {', '.join(files) or 'none'}")
    chosen = files if part is None else {part: files[part]}
    with contextlib.ExitStack() as stack:
        opened = {name: stack.enter_context(path.open(errors="replace")) for name, path in chosen.items()}
        for name, file in opened.items():
            _print_lines(name if part is None else "", list(collections.deque(file, maxlen=tail)))
        while follow:
            _print_added(opened, named=part is None)
            time.sleep(FOLLOW_POLL_S)


@sandbox.command()
@click.pass_obj
def env(state: Path) -> None:
    """Print shell exports: the configuration, and where everything is.

    \b
    Example:
      eval "$(mrc sandbox env)"
    """
    for name, value in _open(state).env().items():
        click.echo(f"export {name}={shlex.quote(value)}")


def _group_and_delay(wish: str) -> tuple[str, float]:
    group, _, delay = wish.partition(":")
    try:
        return group, float(delay or 0)
    except ValueError:
        raise click.BadParameter(f"{wish!r}: what follows the colon is not a number of seconds", param_hint="--group") from None


def _open(state: Path) -> Sandbox:
    from mrc.sandbox.world import Sandbox

    return Sandbox(state)


@contextlib.contextmanager
def _progress() -> Iterator[Progress]:
    """Yield a progress that prints a line per part, below a spinner on a terminal."""
    began_s = time.monotonic()

    def line(part: str, what: str) -> str:
        return f"{time.monotonic() - began_s:5.1f} s  {part}: {what}"

    if not sys.stderr.isatty():
        yield lambda part, what: click.echo(line(part, what), err=True)
        return
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    with console.status("starting"):
        yield lambda part, what: console.print(line(part, what), markup=False)


def _table(rows: Sequence[PartStatus]) -> Table:
    from rich.text import Text

    colours = {"up": "green", "starting": "yellow", "cut": "red", "down": "red"}
    cells: list[tuple[object, ...]] = [
        (row.part, row.pid, row.port or None, Text(row.state, style=colours[row.state]), row.rss_mb if row.pid else None) for row in rows
    ]
    return grid(("part", ">pid", ">port", "state", ">rss MiB"), [*cells, ("all", None, None, None, sum(row.rss_mb for row in rows))])


def _print_added(opened: Mapping[str, TextIO], *, named: bool) -> None:
    for name, file in opened.items():
        _print_lines(name if named else "", file.readlines())


def _print_lines(name: str, lines: list[str]) -> None:
    for line in lines:
        click.echo(f"{name}: {line.rstrip()}" if name else line.rstrip())


@sandbox.command()
@click.option("--rate", type=click.FloatRange(min=1), default=1000.0, show_default=True, help="Events per second.")
@click.option("--report", "report_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the verdict there as JSON.")
@click.option("--pages", type=click.Path(file_okay=False, path_type=Path), help="Write the report of each move there, as HTML and JSON.")
@click.option("--mm2-exactly-once", is_flag=True, help="Let MirrorMaker copy in transactions.")
@click.option("--keep", is_flag=True, help="Leave the sandbox up afterwards.")
@click.pass_context
def demo(ctx: click.Context, rate: float, report_file: Path | None, pages: Path | None, mm2_exactly_once: bool, keep: bool) -> int:
    """Watch a region die and everything come home: switchover, switchover back, kill, failover, return, switchover home.

    Takes about two minutes on a fresh state folder. Loss, repetition and times are counted from the traffic's own logs. Exit
    code 3 when a promise is broken; no process is left.

    \b
    Examples:
      mrc sandbox demo
      mrc sandbox --state /tmp/demo demo --report report.json
    """
    from mrc.cli.traffic import verdict_table
    from mrc.sandbox.demo import Demo, report
    from mrc.sandbox.layout import Options

    options = Options(mm2_exactly_once=mm2_exactly_once)
    run = Demo(ctx.obj, lambda line: click.echo(line, err=True), rate=rate, options=options, pages=pages)
    with _left_clean(run.sandbox, keep=keep):
        verdict = run.run()
    if report_file is not None:
        report_file.write_bytes(report(verdict))
    emit(ctx, verdict, table=verdict_table)
    for reason in verdict.reasons:
        click.echo(f"broken: {reason}", err=True)
    return Exit.OK if verdict.ok else Exit.FINDINGS


@sandbox.command("demo-conflicts")
@click.option("--keep", is_flag=True, help="Leave the sandbox up afterwards.")
@click.pass_obj
def demo_conflicts(state: Path, /, keep: bool) -> None:
    """Watch two regions write about one order: Cancelled in east, Shipped in west, resolved by four rules files.

    Each conflict is explained, with what every region has decided. Exit code 1 where the regions do not agree; no process is left.

    \b
    Examples:
      mrc sandbox demo-conflicts
      mrc sandbox --state /tmp/conflicts demo-conflicts --keep
    """
    from mrc.sandbox.conflict_demo import ConflictDemo

    run = ConflictDemo(state, lambda line: click.echo(line, err=True), click.echo)
    with _left_clean(run.sandbox, keep=keep):
        run.run()


@contextlib.contextmanager
def _left_clean(world: Sandbox, *, keep: bool) -> Iterator[None]:
    """End on the signals that a terminal and a supervisor send, and leave no process of the sandbox unless it is to be kept."""
    for one in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, signal.default_int_handler)
    try:
        yield
    finally:
        if not keep:
            for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(one, signal.SIG_IGN)  # whoever asks twice is to find nothing left either
            world.down()

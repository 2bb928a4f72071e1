"""``mrc sandbox``: two real regions on one machine. Progress and talk go to stderr, data to stdout."""

from __future__ import annotations

import collections
import contextlib
import json
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

if TYPE_CHECKING:
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
    r"""Two real regions on one machine: brokers, Connect with MirrorMaker 2, ZooKeeper.

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
@click.pass_obj
def up(state: Path, /, brokers: str | None, **choices: object) -> None:
    r"""Start what does not run, and wait until all of it works.

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
    r"""End every process of the sandbox, agents and traffic too. Data and logs stay, unless --wipe.

    \b
    Example:
      mrc sandbox down --wipe
    """
    ended = _open(state).down(wipe=wipe)
    click.echo(f"ended {', '.join(ended)}" if ended else "nothing was running", err=True)


@sandbox.command()
@click.option("--output", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True, help="Form of the answer.")
@click.pass_obj
def status(state: Path, output: str) -> None:
    r"""Show every part: process, port, state, memory.

    \b
    Example:
      mrc sandbox status --output json
    """
    rows = _open(state).status()
    if output == "table":
        _table(rows)
        return
    plain = [{name: getattr(row, name) for name in row.__struct_fields__} for row in rows]
    if output == "json":
        click.echo(json.dumps(plain, indent=2))
    else:
        import yaml

        click.echo(yaml.safe_dump(plain, sort_keys=False), nl=False)


@sandbox.command()
@click.argument("region", type=REGION)
@click.option("--agents/--no-agents", default=True, show_default=True, help="Whether the region's agents die with it.")
@click.pass_obj
def kill(state: Path, region: str, *, agents: bool) -> None:
    r"""Kill REGION's brokers, Connect and ZooKeeper server (SIGKILL), and its agents.

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
    r"""Start REGION's servers again and wait until they work. Agents are started with `mrc sandbox agents start`.

    \b
    Example:
      mrc sandbox start east
    """
    with _progress() as progress:
        _open(state).start(region, progress)
    click.echo(f"{region} is up", err=True)


@sandbox.group()
def agents() -> None:
    """Start or stop mrc's agents in the sandbox."""


@agents.command("start")
@click.argument("region", type=REGION, required=False)
@click.pass_obj
def start_agents(state: Path, region: str | None) -> None:
    r"""Start the agents of REGION, or of both, and wait until they answer.

    \b
    Example:
      mrc sandbox agents start
    """
    click.echo(f"agents {', '.join(_open(state).start_agents(region))} run", err=True)


@agents.command("stop")
@click.argument("region", type=REGION, required=False)
@click.pass_obj
def stop_agents(state: Path, region: str | None) -> None:
    r"""Ask the agents of REGION, or of both, to hand over and end.

    \b
    Example:
      mrc sandbox agents stop east
    """
    ended = _open(state).stop_agents(region)
    click.echo(f"ended {', '.join(ended)}" if ended else "no agent was running", err=True)


@sandbox.command()
@click.argument("part", required=False)
@click.option("--follow", "-f", is_flag=True, help="Go on with what is added, until Ctrl-C.")
@click.option("--tail", type=click.IntRange(min=0), default=20, show_default=True, help="Lines of each log to begin with.")
@click.pass_obj
def logs(state: Path, part: str | None, *, follow: bool, tail: int) -> None:
    r"""Show what PART printed, or what all parts printed, each line after its part's name.

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
    r"""Print shell exports: the configuration, and where everything is.

    \b
    Example:
      eval "$(mrc sandbox env)"
    """
    for name, value in _open(state).env().items():
        click.echo(f"export {name}={shlex.quote(value)}")


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


def _table(rows: list[PartStatus]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("part", "pid", "port", "state", "rss MiB"):
        table.add_column(name, justify="right" if name in ("pid", "port", "rss MiB") else "left")
    colours = {"up": "green", "starting": "yellow", "down": "red"}
    for row in rows:
        pid, rss_mb = ("", "") if row.pid is None else (str(row.pid), str(row.rss_mb))
        table.add_row(row.part, pid, str(row.port or ""), f"[{colours[row.state]}]{row.state}[/]", rss_mb)
    table.add_row("all", "", "", "", str(sum(row.rss_mb for row in rows)), style="bold")
    Console().print(table)


def _print_added(opened: Mapping[str, TextIO], *, named: bool) -> None:
    for name, file in opened.items():
        _print_lines(name if named else "", file.readlines())


def _print_lines(name: str, lines: list[str]) -> None:
    for line in lines:
        click.echo(f"{name}: {line.rstrip()}" if name else line.rstrip())

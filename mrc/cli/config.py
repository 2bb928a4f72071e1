"""``mrc config``: check the configuration file, or make a first one from an existing estate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import click

from mrc.cli.exits import Exit
from mrc.cli.invocation import invocation
from mrc.cli.output import emit, grid

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mrc.config import Problem
    from mrc.config.guess import Protocol


@click.group()
def config() -> None:
    """Check the configuration, or make one."""


class Checked(TypedDict):
    """What `mrc config check` answers."""

    file: str
    ok: bool
    problems: list[Problem]


@config.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.pass_context
def check(ctx: click.Context, file: Path | None) -> int:
    """Show every error of FILE (else of the file that mrc would use) at once.

    Looks at the file and at the files that it names; asks no server. Exit code 3 where there are errors.

    \b
    Examples:
      mrc config check
      mrc config check staging.yaml -o json
    """
    from mrc.config import check as check_file

    path = file or invocation(ctx).config_path()
    _, problems = check_file(path)
    emit(ctx, Checked(file=str(path), ok=not problems, problems=list(problems)), table=_verdict)
    return Exit.FINDINGS if problems else Exit.OK


def _verdict(checked: Checked) -> RenderableType:
    from rich.text import Text

    if checked["ok"]:
        return Text(f"{checked['file']}: no errors")
    rows = ((problem.line, problem.key, problem.message) for problem in checked["problems"])
    return grid((">line", "key", "problem"), rows, title=checked["file"])


class Named(click.ParamType[tuple[str, str]]):
    """``NAME=VALUE``."""

    name = "NAME=VALUE"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Return both parts; neither may be empty."""
        name, _, text = value.partition("=")
        if not name or not text:
            self.fail(f"{value!r} is not NAME=VALUE", param, ctx)
        return name, text


class Made(TypedDict):
    """What `mrc config init` answers."""

    file: str
    guessed: list[str]
    problems: list[Problem]


@config.command()
@click.argument("file", type=click.Path(path_type=Path), default=Path("mrc.yaml"))
@click.option("--kafka", type=Named(), multiple=True, required=True, metavar="REGION=HOST:PORT", help="A region's Kafka; once per region.")
@click.option("--connect", type=Named(), multiple=True, required=True, metavar="REGION=URL", help="A region's Connect; once per region.")
@click.option("--zookeeper", default="127.0.0.1:2181", show_default=True, metavar="HOST:PORT,...", help="The ensemble of all regions.")
@click.option(
    "--protocol",
    type=click.Choice(["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]),
    default="PLAINTEXT",
    show_default=True,
    help="Kafka's security protocol.",
)
@click.option("--mechanism", type=click.Choice(["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]), help="SASL mechanism.")
@click.option("--username", help="mrc's own user in Kafka.")
@click.option("--password-file", type=click.Path(exists=True, dir_okay=False, resolve_path=True), help="The file with its password.")
@click.option("--ca-file", type=click.Path(exists=True, dir_okay=False, resolve_path=True), help="Certificates to trust.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=0.1), default=10.0, show_default=True, help="Seconds for each question.")
@click.pass_context
def init(
    ctx: click.Context,
    file: Path,
    kafka: tuple[tuple[str, str], ...],
    connect: tuple[tuple[str, str], ...],
    zookeeper: str,
    protocol: Protocol,
    mechanism: str | None,
    username: str | None,
    password_file: str | None,
    ca_file: str | None,
    timeout_s: float,
) -> int:
    """Write a first FILE from what existing Kafka and Connect clusters show.

    Reads topics, consumer groups, ACLs and MirrorSourceConnectors; changes nothing there. Lists what was guessed, in the file
    too. An existing FILE is never overwritten. Exit code 3 where something is left to be filled in.

    \b
    Examples:
      mrc config init --kafka east=kafka-e:9092 --connect east=http://connect-e:8083 \\
                      --kafka west=kafka-w:9092 --connect west=http://connect-w:8083
    """
    from mrc.config import check as check_file
    from mrc.config.guess import Login, guess
    from mrc.wiring.survey import survey

    bootstraps, urls = dict(kafka), dict(connect)
    if bootstraps.keys() != urls.keys() or len(bootstraps) < 2:
        raise click.UsageError("name --kafka and --connect for the same regions, two at least", ctx)
    if file.exists():
        raise click.UsageError(f"{file} exists and is not overwritten", ctx)
    login = Login(protocol, mechanism, username, password_file, ca_file)
    made = guess({region: survey(region, bootstraps[region], urls[region], login, timeout_s) for region in bootstraps}, login, zookeeper)
    with file.open("x", encoding="utf-8") as new:
        new.write(made.text)
    _, problems = check_file(file)
    emit(ctx, Made(file=str(file), guessed=list(made.notes), problems=list(problems)), table=_made)
    return Exit.FINDINGS if problems else Exit.OK


def _made(made: Made) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [Text(f"wrote {made['file']}; guessed, so check it:"), *(Text(f"- {note}") for note in made["guessed"])]
    if made["problems"]:
        parts.append(_verdict(Checked(file=made["file"], ok=False, problems=made["problems"])))
    return Group(*parts)

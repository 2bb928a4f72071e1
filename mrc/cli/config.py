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

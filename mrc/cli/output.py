"""What goes to stdout: a table for people, JSON or YAML with stable keys for programs; and errors on stderr.

Imports of rich and yaml wait until something is rendered, so that help and completion stay quick.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mrc.cli.invocation import Invocation, invocation
from mrc.core.errors import CODES, MrcError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

T = TypeVar("T")

_WIDTH_OF_PIPES = 200


def emit(ctx: click.Context, data: T, *, table: Callable[[T], RenderableType]) -> None:
    """Write ``data`` to stdout in the form that was asked for.

    Args:
        ctx: of the running command.
        data: structs, dicts, lists and scalars; their field names are the stable keys of JSON and YAML.
        table: makes what people see; called for tables only.
    """
    call = invocation(ctx)
    if call.output == "json":
        click.echo(as_json(data))
    elif call.output == "yaml":
        click.echo(as_yaml(data), nl=False)
    else:
        console(call).print(table(data))


def as_json(data: object) -> str:
    """Return ``data`` as indented JSON."""
    import msgspec

    return msgspec.json.format(msgspec.json.encode(data), indent=2).decode()


def as_yaml(data: object) -> str:
    """Return ``data`` as YAML, keys in their own order."""
    import msgspec
    import yaml

    return str(yaml.safe_dump(msgspec.to_builtins(data), sort_keys=False, allow_unicode=True))


def console(call: Invocation) -> Console:
    """Return a console on stdout; wide where stdout is no terminal, so that nothing is cut off in files and pipes."""
    from rich.console import Console

    fixed = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _WIDTH_OF_PIPES
    return Console(width=fixed, no_color=call.no_color or None, highlight=False, soft_wrap=False)


def grid(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None) -> Table:
    """Return a plain table.

    Args:
        columns: headings; one that begins with ``>`` stands to the right, for numbers.
        rows: cells; a str is taken as it is (no markup), None is shown as ``-``. No control character reaches the terminal.
        title: above it, taken as it is too.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from mrc.core.failover.markup import visible

    above = None if title is None else Text(visible(title), "bold")
    made = Table(box=SIMPLE_HEAD, title=above, title_justify="left", pad_edge=False, show_edge=False)
    for column in columns:
        made.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left")
    for row in rows:
        made.add_row(
            *(Text("-" if cell is None else visible(cell)) if cell is None or isinstance(cell, str) else _renderable(cell) for cell in row)
        )
    return made


def _renderable(cell: object) -> Any:
    return cell if hasattr(cell, "__rich__") or hasattr(cell, "__rich_console__") else str(cell)


def show_error(error: MrcError, call: Invocation, remedy: str | None = None) -> None:
    """Write ``error`` to stderr: three lines for people, one object where JSON was asked for."""
    from mrc.core.failover.markup import visible

    remedy = remedy or CODES[error.code].remedy
    if call.output == "json":
        said = {"code": error.code, "message": error.message, "where": error.where, "retryable": error.retryable, "next": remedy}
        click.echo(as_json({"error": said}), err=True)
        return
    message = visible(error.message).replace("\n", "\n  ")
    lines = [f"error: {message}", f"  where: {visible(error.where)}" if error.where else "", f"  code: {error.code}", f"  next: {remedy}"]
    click.echo("\n".join(line for line in lines if line), err=True)

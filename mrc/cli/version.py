"""``mrc version``: which mrc this is."""

from __future__ import annotations

import platform

import click

import mrc
from mrc.cli.output import emit, grid


@click.command()
@click.pass_context
def version(ctx: click.Context) -> None:
    """Print the version of the command line."""
    emit(
        ctx,
        {"mrc": mrc.__version__, "python": platform.python_version()},
        table=lambda versions: grid(("part", "version"), versions.items()),
    )

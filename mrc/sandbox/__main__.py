"""``python -m mrc.sandbox jars``: fetch what the sandbox runs, ahead of the first `up`. Prints the folder."""

from __future__ import annotations

import sys

import click

from mrc.core.errors import MrcError
from mrc.sandbox import jars


def main(arguments: list[str]) -> int:
    """Return 0 when the jars are there, 1 when they cannot be had, 2 when asked for anything else, 130 when interrupted."""
    if arguments != ["jars"]:
        click.echo("usage: python -m mrc.sandbox jars", err=True)
        return 2
    try:
        click.echo(jars.fetch(lambda line: click.echo(line, err=True)))
    except MrcError as error:
        click.echo(error, err=True)  # its remedy is for servers that failed
        return 1
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

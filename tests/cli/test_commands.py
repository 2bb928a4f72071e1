"""Every command, walked through: each explains itself and takes the options of every call."""

from __future__ import annotations

from collections.abc import Iterator

import click

from mrc.cli.main import COMMANDS, cli


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command, those below groups included, with its path."""
    left = [(name, cli.get_command(click.Context(cli), name)) for name in COMMANDS]
    while left:
        path, command = left.pop()
        assert command is not None, path
        yield path, command
        if isinstance(command, click.Group):
            left += [(f"{path} {name}", child) for name, child in command.commands.items()]


def test_every_command_explains_itself_and_each_of_its_options() -> None:
    for path, command in commands():
        assert command.help, f"mrc {path} has no help"
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"mrc {path} {parameter.opts[0]} has no help"


def test_every_command_takes_the_options_of_every_call() -> None:
    for path, command in commands():
        taken = {name for parameter in command.params for name in parameter.opts}
        assert taken >= {"--config", "--output", "--replication-group", "--no-color", "--verbose"}, path

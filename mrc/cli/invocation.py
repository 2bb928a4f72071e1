"""What every command knows about its call: the options that stand before or after any command.

Owns those options and where the configuration is looked for. Loads the configuration only when a command asks for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
from click.core import ParameterSource

from mrc.core.errors import MrcError

if TYPE_CHECKING:
    from mrc.config import ReplicationGroup, Settings

Output = Literal["table", "json", "yaml"]

PLACES = (Path("mrc.yaml"), Path(".mrc-sandbox/mrc.yaml"))
"""Where the configuration is looked for, below the working directory, when nobody names it."""


class Invocation:
    """One call of mrc.

    Attributes:
        config: the file as named by ``--config`` or ``MRC_CONFIG``; None when nobody named one.
        output: the form of what goes to stdout.
        replication_group: as named; None means the only one.
        no_color: whether tables are without colour.
        verbose: whether an error shows its traceback whoever's fault it is.
    """

    def __init__(self) -> None:
        self.config: Path | None = None
        self.output: Output = "table"
        self.replication_group: str | None = None
        self.no_color = False
        self.verbose = False

    def config_path(self) -> Path:
        """Return the configuration file. Raises ``CONFIG_NOT_FOUND``."""
        if self.config is not None:
            return self.config
        for place in PLACES:
            if place.is_file():
                return place
        places = " nor ".join(f"./{place}" for place in PLACES)
        raise MrcError("CONFIG_NOT_FOUND", f"there is neither {places}")

    def settings(self) -> Settings:
        """Return the configuration. Raises ``CONFIG_NOT_FOUND``, ``CONFIG_INVALID``."""
        from mrc.config import load

        return load(self.config_path())

    def group(self, settings: Settings) -> ReplicationGroup:
        """Return the replication group that the call speaks of. Raises ``UNKNOWN_REPLICATION_GROUP``."""
        return settings.replication_group(self.replication_group)


def invocation(ctx: click.Context) -> Invocation:
    """Return the call's options."""
    return ctx.ensure_object(Invocation)


def _remember(ctx: click.Context, param: click.Parameter, value: object) -> None:
    if ctx.get_parameter_source(str(param.name)) in (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT):
        setattr(invocation(ctx), str(param.name), value)


def _options() -> list[click.Option]:
    def option(*names: str, **more: object) -> click.Option:
        return click.Option(names, callback=_remember, expose_value=False, **more)  # type: ignore[arg-type]

    return [
        option(
            "--config",
            "-c",
            type=click.Path(path_type=Path),
            metavar="FILE",
            envvar="MRC_CONFIG",
            show_envvar=True,
            help=f"The configuration; else {' or '.join(f'./{place}' for place in PLACES)}.",
        ),
        option("--output", "-o", type=click.Choice(["table", "json", "yaml"]), help="What goes to stdout; table when left out."),
        option("--replication-group", "-g", metavar="NAME", help="Which one; optional where there is only one."),
        option("--no-color", is_flag=True, help="Tables without colour; NO_COLOR does the same."),
        option("--verbose", is_flag=True, help="Show the traceback of every error."),
    ]


def take_options(command: click.Command, *, hidden: bool) -> None:
    """Let ``command``, and every command below it, take the options of every call, where it has none of that name.

    Hidden where they stand behind a command, so that a command's help shows what is its own.
    """
    taken = set(_names(command.params))
    for option in _options():
        if taken.isdisjoint(option.opts):
            if hidden:
                option.hidden = True
                option.envvar = None
            command.params.append(option)
    if isinstance(command, click.Group):
        for child in command.commands.values():
            take_options(child, hidden=True)


def _names(parameters: Iterable[click.Parameter]) -> Iterable[str]:
    return (name for parameter in parameters for name in parameter.opts)

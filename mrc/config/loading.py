"""Reading `mrc.yaml`: from a path to consistent `Settings`, or to every problem of the file at once."""

from __future__ import annotations

from pathlib import Path

import msgspec

from mrc.config.consistency import findings
from mrc.config.located import Problem, build, read, refuse
from mrc.config.settings import RoutingSettings, Settings


def load(path: Path) -> Settings:
    """Return the settings in the file at ``path``, with absolute paths.

    Raises:
        MrcError: ``CONFIG_NOT_FOUND``; ``CONFIG_INVALID`` at the first problem, with the others listed in its message.
    """
    settings, problems = check(path)
    if settings is None or problems:
        raise refuse("CONFIG_INVALID", problems)
    return settings


def check(path: Path) -> tuple[Settings | None, tuple[Problem, ...]]:
    """Return the settings and every problem of the file, by line; None where its shape is wrong.

    What must hold between fields is looked at only when the shape is right.

    Raises:
        MrcError: ``CONFIG_NOT_FOUND``; ``CONFIG_INVALID`` where the file cannot be read at all.
    """
    document = read(path, missing="CONFIG_NOT_FOUND", invalid="CONFIG_INVALID")
    if not document.problems:
        document.examine(Settings, unwritten=("base",))
    if document.problems:
        return None, document.sorted_problems
    base = path.absolute().parent
    settings = _with_programs(build({**document.data, "base": str(base)}, Settings, base))
    for key, message in findings(settings):
        document.problem(key, message)
    return settings, document.sorted_problems


def _with_programs(settings: Settings) -> Settings:
    """Make the routing commands' programs absolute where they are paths."""
    groups = tuple(
        group if group.routing is None else msgspec.structs.replace(group, routing=_with_paths(settings.base, group.routing))
        for group in settings.replication_groups
    )
    return msgspec.structs.replace(settings, replication_groups=groups)


def _with_paths(base: Path, routing: RoutingSettings) -> RoutingSettings:
    return msgspec.structs.replace(routing, command=_with_program(base, routing.command), read_back=_with_program(base, routing.read_back))


def _with_program(base: Path, command: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if command is None:
        return None
    program, *arguments = command
    return (str(base / program) if "/" in program else program, *arguments)

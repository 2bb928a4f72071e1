"""What the commands of ``mrc offsets`` share: whom they ask, how they ask a person, how they show readings and answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import click

from mrc.cli.invocation import Invocation

if TYPE_CHECKING:
    from mrc.core.model import Reading
    from mrc.core.views import TranslationView


class Standby(NamedTuple):
    """The region whose leader keeps the checkpoints: the one that is not active.

    Attributes:
        epoch: of the active-region record.
    """

    replication_group: str
    region: str
    epoch: int


def standby(call: Invocation) -> Standby:
    """Ask the agents which region that is.

    Raises:
        MrcError: why nobody can say which one that is.
    """
    from mrc.cli.status import active

    view, record = active(call)
    region = next(region.region for region in view.regions if region.region != record.region)
    return Standby(view.replication_group, region, record.epoch)


def cells_of(translation: TranslationView) -> tuple[str, str]:
    """Return a translation as two cells: the offset, and what it rests on."""
    if translation.type == "unknown":
        return "?", f"unknown: {translation.reason}"
    repeats = f", at most {translation.repeats_max} repeat ({translation.reason})" if translation.type == "bounded" else ""
    return str(translation.offset), f"{translation.type}{repeats}"


def cell(reading: Reading[float], form: str = ".0f") -> str:
    """Return a reading as a cell: the value, ``-`` where there is none, ``?`` with the reason where it could not be read."""
    from mrc.core.model import Known

    if isinstance(reading, Known):
        return format(reading.value, form)
    return "-" if reading.reason in ("no-position", "no-checkpoint", "not-committed") else f"? {reading.reason}"


def confirm(ctx: click.Context, name: str, what: str) -> None:
    """Let a person type ``name``; raise a usage error where something else is typed."""
    if click.prompt(f"type {name} to {what}", err=True, default="", show_default=False) != name:
        raise click.UsageError(f"that is not {name}; nothing was changed", ctx)

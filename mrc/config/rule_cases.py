"""Cases beside a rules file: short stories and how they must end."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from mrc.config.located import build, read, refuse
from mrc.core.conflict.story import Told


class Expected(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a story must end; what is not given may be anything.

    Attributes:
        winner: id of the event that stands.
        rule: id of the rule that decided the last conflict; ``none``: there is no conflict at the end.
        fields: values that must stand, merged or the winner's own.
        waits: a person is asked.
    """

    winner: str
    rule: str | None = None
    fields: dict[str, Any] = {}
    waits: bool | None = None


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One case."""

    name: str
    entity: str
    events: Annotated[tuple[Told, ...], msgspec.Meta(min_length=1)]
    expect: Expected


class Cases(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file."""

    version: Literal[1]
    cases: Annotated[tuple[Case, ...], msgspec.Meta(min_length=1)]


def load_cases(path: Path) -> tuple[Case, ...]:
    """Return the cases in the file at ``path``.

    Raises:
        MrcError: ``RULES_INVALID`` at the first problem (file, line, key), with the others listed in its message.
    """
    document = read(path, missing="RULES_INVALID", invalid="RULES_INVALID")
    if not document.problems:
        document.examine(Cases)
    if document.problems:
        raise refuse("RULES_INVALID", document.sorted_problems)
    return build(document.data, Cases, path.parent).cases

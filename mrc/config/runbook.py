"""Runbook files: found, read and checked for shape. Safety of their order is the linter's business, not this module's."""

from __future__ import annotations

import hashlib
from pathlib import Path

import mrc
from mrc.config.located import build, read, refuse
from mrc.config.settings import ReplicationGroup
from mrc.core.failover.runbook import Runbook


def load_runbook(path: Path) -> tuple[Runbook, str]:
    """Return the runbook in the file at ``path`` and the SHA-256 of the file's bytes, in hexadecimal.

    Raises:
        MrcError: ``RUNBOOK_INVALID`` at the first problem (file, line, key), with the others listed in its message.
    """
    document = read(path, missing="RUNBOOK_INVALID", invalid="RUNBOOK_INVALID")
    if not document.problems:
        document.examine(Runbook, unwritten=("left_out",))
    if document.problems:
        raise refuse("RUNBOOK_INVALID", document.sorted_problems)
    runbook = build(document.data, Runbook, path.parent)
    seen: set[str] = set()
    for index, step in enumerate(runbook.steps):
        if step.name in seen:
            document.problem(("steps", index, "name"), f"step {step.name} is there twice")
        seen.add(step.name)
    if document.problems:
        raise refuse("RUNBOOK_INVALID", document.sorted_problems)
    return runbook, hashlib.sha256(document.text).hexdigest()


def runbook_folder(group: ReplicationGroup) -> Path:
    """Return the folder of the group's runbooks: the configured one, else the one shipped with mrc."""
    if group.runbooks is not None:
        return group.runbooks
    package = Path(mrc.__file__).parent
    installed = package / "runbooks"
    return installed if installed.is_dir() else package.parent / "runbooks"

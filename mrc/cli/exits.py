"""Exit codes: what a script may rely on. A code never changes its meaning."""

from __future__ import annotations

from enum import IntEnum

from mrc.core.errors import MrcError


class Exit(IntEnum):
    """The exit codes of every command."""

    OK = 0
    WORLD = 1
    USAGE = 2
    FINDINGS = 3
    RUNNING = 4
    BUG = 70
    INTERRUPTED = 130


MEANINGS: dict[Exit, str] = {
    Exit.OK: "done; what was asked for holds",
    Exit.WORLD: "the world failed: something did not answer or refused",
    Exit.USAGE: "asked wrongly: option, name or configuration",
    Exit.FINDINGS: "an answer with findings: not ready, disagreement, move refused",
    Exit.RUNNING: "the move goes on without this command; re-attach with `mrc watch`",
    Exit.BUG: "mrc is wrong; a traceback is shown",
    Exit.INTERRUPTED: "interrupted before anything was started",
}


def exit_of(error: MrcError) -> Exit:
    """Return the exit code for ``error``."""
    if error.code == "PLAN_REFUSED":
        return Exit.FINDINGS
    return {"usage": Exit.USAGE, "world": Exit.WORLD, "bug": Exit.BUG}[error.kind]

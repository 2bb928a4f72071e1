"""A command is run without a shell, told the facts on standard input, and ended with its children when it takes too long.

Requests are made by `mrc.adapters.routing.http`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from mrc.adapters.routing import http
from mrc.core.errors import MrcError
from mrc.core.model import encode

_REAP_S = 1.0
"""How long a killed process group may take to let go of its pipes."""


class CommandHook:
    """The port `Hook`.

    Args:
        folder: where commands run; relative commands are found there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def run(self, argv: Sequence[str], facts: Mapping[str, str], timeout_s: float) -> str:
        """See `Hook.run`. Raises ``HOOK_FAILED`` with the last line of standard error."""
        try:
            # Its own process group, so that a time-out ends its children too.
            process = subprocess.Popen(
                list(argv),
                cwd=self._folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except (OSError, ValueError, IndexError) as error:
            raise _failed(argv, str(error)) from error
        try:
            output, errors = process.communicate(encode(dict(facts)), timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            raise _failed(argv, f"no end within {timeout_s:g} s", retryable=True) from error
        finally:
            _end(process)
        if process.returncode != 0:
            lines = errors.decode(errors="replace").strip().splitlines()
            raise _failed(argv, f"exit code {process.returncode}: {lines[-1] if lines else 'nothing on standard error'}")
        return output.decode(errors="replace")

    def send(self, method: str, url: str, facts: Mapping[str, str], timeout_s: float) -> str:
        """See `Hook.send`."""
        return http.send(method, url, facts, timeout_s)


def _failed(argv: Sequence[str], why: str, *, retryable: bool = False) -> MrcError:
    return MrcError("HOOK_FAILED", why, where=argv[0] if argv else "", retryable=retryable)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the process group, and close the pipes."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired, ValueError):
        process.communicate(timeout=_REAP_S)

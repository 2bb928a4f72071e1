"""What the end-to-end tests share: a state folder of their own, mrc as its operators run it, and what its answers say."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mrc.sandbox.world import Sandbox

BUILD = Path(__file__).resolve().parents[2] / "build" / "e2e"

POLL_S = 0.25
IN_TIME_S = 240.0
"""What anything may take on a machine several times slower than it should be: tests find what never comes, not what comes late."""


def state(name: str) -> Path:
    """Return a fresh state folder; it stays when the test fails."""
    folder = BUILD / name
    if folder.exists():
        Sandbox(folder).down(wipe=True)
        shutil.rmtree(folder, ignore_errors=True)
    return folder


def command(sandbox: Sandbox, *arguments: str, output: str = "json") -> list[str]:
    """Return the command line of mrc on this sandbox."""
    return [sys.executable, "-m", "mrc", "--config", str(sandbox.config_path), "--output", output, *arguments]


def environment() -> dict[str, str]:
    """Return the environment in which mrc runs: tables are wide, as in a pipe."""
    return {**os.environ, "COLUMNS": "200"}


def mrc(sandbox: Sandbox, *arguments: str, output: str = "json") -> subprocess.CompletedProcess[str]:
    """Run a command of mrc to its end."""
    return subprocess.run(
        command(sandbox, *arguments, output=output), capture_output=True, text=True, timeout=IN_TIME_S, check=False, env=environment()
    )


def said(sandbox: Sandbox, *arguments: str) -> Any:
    """Return what a command wrote to stdout, decoded; it may end with findings."""
    done = mrc(sandbox, *arguments)
    assert done.returncode in (0, 3), done.stderr
    return json.loads(done.stdout)


def refusal(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Return the error object on stderr, behind whatever else was said there."""
    assert "{" in done.stderr, done
    error: dict[str, Any] = json.loads(done.stderr[done.stderr.index("{") :])["error"]
    return error


def eventually(holds: Callable[[], bool], otherwise: Callable[[], object] = lambda: "", timeout_s: float = IN_TIME_S) -> None:
    """Return as soon as it holds; fail with ``otherwise()`` when it does not in time."""
    until_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < until_s, otherwise()
        time.sleep(POLL_S)


def ready(sandbox: Sandbox, target: str, *words: str) -> None:
    """Wait until a switchover to ``target``, with these options, could be planned with exact positions."""
    last: list[subprocess.CompletedProcess[str]] = []

    def planned() -> bool:
        last[:] = [mrc(sandbox, "plan", "switchover", target, *words)]
        positions = json.loads(last[0].stdout)["positions"] if last[0].returncode == 0 else []
        return bool(positions) and all(p["translation"]["type"] == "exact" for p in positions)

    eventually(planned, lambda: last[0].stdout + last[0].stderr)


def begun(sandbox: Sandbox, *move: str) -> str:
    """Start a move and return its id; nobody follows it.

    It is asked for until it begins: a server that is late for a moment is reason enough to refuse one, and after a region's death
    ZooKeeper may have to elect a leader first.
    """
    token = uuid.uuid4().hex
    last: list[subprocess.CompletedProcess[str]] = []

    def accepted() -> bool:
        last[:] = [mrc(sandbox, *move, "--yes", "--no-wait", "--token", token)]
        return last[0].returncode == 4

    eventually(accepted, lambda: last[0].stdout + last[0].stderr)
    return str(json.loads(last[0].stdout)["id"])


def leader(sandbox: Sandbox, region: str) -> str:
    """Return the id of the agent that leads in a region, as soon as one does."""
    found: list[str] = []

    def elected() -> bool:
        found[:] = [str(r["leader"]) for r in said(sandbox, "status")["regions"] if r["region"] == region]
        return bool(found[0])

    eventually(elected)
    return found[0]

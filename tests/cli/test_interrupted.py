"""A command that ends before its move has ended: the move goes on, and whoever started it can find it again."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import mrc.cli.main as program
from mrc.cli import moves
from mrc.cli.exits import Exit
from mrc.core.views import ExecutionView
from tests.cli.running import run
from tests.control.estate import Agent, Estate

ROOT = Path(__file__).parents[2]


class Halt:
    """Lets an agent's method begin, and end when it is told to."""

    def __init__(self, agent: Agent, method: str) -> None:
        self.began, self.go_on = threading.Event(), threading.Event()
        self._method: Callable[..., ExecutionView] = getattr(agent, method)
        setattr(agent, method, self._halted)

    def _halted(self, *arguments: object) -> ExecutionView:
        self.began.set()
        assert self.go_on.wait(30)
        return self._method(*arguments)


def interrupted(estate: Estate, when: Callable[[], object], *arguments: str) -> tuple[int, str]:
    """Run mrc, press Ctrl-C when ``when`` has returned, and return its exit code and what it said."""
    command = [sys.executable, "-m", "mrc", "--config", str(estate.path), *arguments]
    asked = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        when()
        asked.send_signal(signal.SIGINT)
        _, said = asked.communicate(timeout=20)
    finally:
        asked.kill()
    return asked.returncode, said


def test_ctrl_c_before_the_answer_says_that_the_move_may_have_begun_and_how_to_ask_again(estate: Estate) -> None:
    halt = Halt(estate.agents["west-b"], "start")
    code, said = interrupted(estate, lambda: halt.began.wait(20), "switchover", "west", "--yes", "--token", "mine")
    assert code == Exit.RUNNING
    assert "`mrc history`" in said
    assert "--token mine" in said
    halt.go_on.set()
    again = run("-o", "json", "--config", str(estate.path), "switchover", "west", "--yes", "--token", "mine")
    assert again.returncode == Exit.OK
    assert len(estate.world.executions) == 1


def test_ctrl_c_before_anything_was_asked_for_starts_nothing(estate: Estate) -> None:
    halt = Halt(estate.agents["west-b"], "plan")
    code, said = interrupted(estate, lambda: halt.began.wait(20), "switchover", "west", "--yes")
    halt.go_on.set()
    assert (code, said.strip()) == (Exit.INTERRUPTED, "interrupted")
    assert estate.world.executions == {}


def test_agents_that_fall_silent_while_it_follows_are_no_failure_of_the_move(
    estate: Estate, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(moves, "RECONNECT_S", 0.5)
    estate.world.auto = False
    halt = Halt(estate.agents["west-b"], "execution")

    def silence() -> None:
        assert halt.began.wait(20)
        halt.go_on.set()
        estate.stop()

    silencing = threading.Thread(target=silence)
    silencing.start()
    code = program.run(["--config", str(estate.path), "switchover", "west", "--yes"])
    silencing.join(20)
    (execution,) = estate.world.executions
    assert code == Exit.RUNNING
    assert f"still running, execution {execution}; re-attach with `mrc watch {execution}`" in capsys.readouterr().err

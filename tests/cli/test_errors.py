"""One funnel: every error is words on stderr and an exit code that scripts can rely on."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
import pytest

import mrc.cli.main as program
from mrc.cli.exits import Exit, exit_of
from mrc.core.errors import CODES, InvariantViolation, MrcError
from tests.cli.running import run


def test_a_misspelt_command_is_answered_with_the_likely_one() -> None:
    answer = run("swichover")
    assert answer.returncode == Exit.USAGE
    assert answer.stdout == ""
    assert "did you mean switchover?" in answer.stderr


def test_an_unknown_option_points_to_the_help_of_its_command() -> None:
    answer = run("version", "--loud")
    assert answer.returncode == Exit.USAGE
    assert "`mrc version --help`" in answer.stderr


def test_errors_are_objects_where_json_was_asked_for() -> None:
    answer = run("-o", "json", "version", "--loud")
    error = json.loads(answer.stderr)["error"]
    assert error["code"] == "BAD_REQUEST"
    assert set(error) == {"code", "message", "where", "retryable", "next"}


def test_a_missing_configuration_says_where_it_was_looked_for(tmp_path: Path) -> None:
    answer = run("config", "check", cwd=tmp_path)
    assert answer.returncode == Exit.USAGE
    assert "./mrc.yaml nor ./.mrc-sandbox/mrc.yaml" in answer.stderr
    assert "code: CONFIG_NOT_FOUND" in answer.stderr


def test_every_code_has_an_exit_code_of_its_kind() -> None:
    for code, row in CODES.items():
        wanted = {"usage": {Exit.USAGE, Exit.FINDINGS}, "world": {Exit.WORLD}, "bug": {Exit.BUG}}[row.kind]
        assert exit_of(MrcError(code, "x")) in wanted, code


RAISED = [
    (MrcError("CLUSTER_UNREACHABLE", "east is silent", where="east"), Exit.WORLD, "where: east", False),
    (MrcError("PLAN_REFUSED", "two findings"), Exit.FINDINGS, "two findings", False),
    (InvariantViolation("two open regions"), Exit.BUG, "two open regions", True),
    (ZeroDivisionError("by what"), Exit.BUG, "ZeroDivisionError: by what", True),
    (KeyboardInterrupt(), Exit.INTERRUPTED, "interrupted", False),
    (click.Abort(), Exit.INTERRUPTED, "interrupted", False),
]


@pytest.mark.parametrize(("error", "code", "said", "traceback"), RAISED)
def test_only_what_is_the_fault_of_mrc_shows_a_traceback(
    error: BaseException, code: Exit, said: str, traceback: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command()
    def broken() -> None:
        """Fail."""
        raise error

    monkeypatch.setattr(sys.modules[__name__], "broken", broken, raising=False)
    monkeypatch.setitem(program.COMMANDS, "broken", (f"{__name__}:broken", "Fail."))
    assert program.run(["broken"]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert said in shown.err
    assert ("Traceback" in shown.err) == traceback


def test_the_exit_code_is_what_the_command_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def found() -> int:
        """Find something."""
        return Exit.FINDINGS

    monkeypatch.setattr(sys.modules[__name__], "found", found, raising=False)
    monkeypatch.setitem(program.COMMANDS, "found", (f"{__name__}:found", "Find."))
    assert program.run(["found"]) == Exit.FINDINGS

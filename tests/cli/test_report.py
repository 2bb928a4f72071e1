"""``mrc report``: the page or the document, from agents or, where none answers, from a region's archive."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mrc.cli.exits import Exit
from mrc.cli.main import run as run_here
from mrc.core.errors import MrcError
from mrc.core.failover.archive import Archived
from mrc.core.failover.report import decode_report
from mrc.core.failover.report_page import page
from tests.cli.running import run
from tests.control.estate import REPORT, Estate
from tests.core import reported


@pytest.fixture
def estate(tmp_path: Path) -> Iterator[Estate]:
    made = Estate(tmp_path)
    try:
        made.agents[made.world.leaders["west"]].start("orders", "switchover", "west", "token", "somebody", "because", False)
        yield made
    finally:
        made.stop()


def only(estate: Estate) -> str:
    return next(iter(estate.world.executions))


def test_the_page_is_written_whole_and_the_document_to_stdout(estate: Estate, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    written = run("report", only(estate), "--file", str(file), "--config", str(estate.path))
    assert (written.returncode, written.stdout) == (Exit.OK, "")
    assert file.read_text() == page(decode_report(REPORT.read_text()))
    assert [one.name for one in tmp_path.iterdir() if one.name.endswith(".part")] == []
    for arguments in (("report", only(estate), "-o", "json"), ("-o", "json", "report", only(estate))):
        said = run(*arguments, "--config", str(estate.path))
        assert (said.returncode, said.stdout) == (Exit.OK, REPORT.read_text())


@pytest.mark.parametrize(
    ("arguments", "code", "exit_code"),
    [
        (("nobody-knows",), "UNKNOWN_EXECUTION", Exit.USAGE),
        (("some", "--archived"), "BAD_REQUEST", Exit.USAGE),
        (("some", "--region", "west"), "BAD_REQUEST", Exit.USAGE),
        (("some", "--output", "yaml"), "BAD_REQUEST", Exit.USAGE),
    ],
)
def test_what_cannot_be_is_refused(estate: Estate, arguments: tuple[str, ...], code: str, exit_code: Exit) -> None:
    answer = run("-o", "json", "report", *arguments, "--config", str(estate.path))
    assert (json.loads(answer.stderr)["error"]["code"], answer.returncode) == (code, exit_code)


def test_a_file_that_cannot_be_written_is_named(estate: Estate, tmp_path: Path) -> None:
    answer = run("report", only(estate), "--file", str(tmp_path / "none" / "report.html"), "--config", str(estate.path))
    assert answer.returncode == Exit.USAGE
    assert "none/report.html" in answer.stderr


def test_where_no_agent_answers_the_archives_are_asked_one_after_the_other(
    estate: Estate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, asked = reported.archived(), []

    def history(settings: object, group: object, region: str) -> dict[str, Archived | str]:
        asked.append(region)
        if region == "east":
            raise MrcError("CLUSTER_UNREACHABLE", "no answer", where="east", retryable=True)
        return {kept.plan.id: kept}

    estate.stop()
    monkeypatch.setattr("mrc.wiring.direct.history", history)
    assert run_here(["report", kept.plan.id, "--output", "json", "--config", str(estate.path)]) == Exit.OK
    found = decode_report(capsys.readouterr().out)
    assert asked == ["east", "west"]
    assert (found.execution, found.steps) == (kept.plan.id, decode_report(REPORT.read_text()).steps)
    assert run_here(["report", "other", "--config", str(estate.path)]) == Exit.USAGE
    assert "UNKNOWN_EXECUTION" in capsys.readouterr().err

"""``mrc divergence``: recovery is asked for where the records are, says how far it has come, and status tells whether all is explained."""

from __future__ import annotations

import json
import subprocess

import pytest

from mrc.cli.exits import Exit
from tests.cli.running import run
from tests.control.estate import Estate


def mrc(estate: Estate, *arguments: str, output: str = "json") -> subprocess.CompletedProcess[str]:
    return run("-o", output, "--config", str(estate.path), *arguments, environment={"COLUMNS": "200"})


@pytest.mark.parametrize("doing", ["export", "resolve"])
def test_a_recovery_says_how_far_it_has_come_and_shows_what_became_of_the_records(estate: Estate, doing: str) -> None:
    answer = mrc(estate, "divergence", doing)
    assert answer.returncode == Exit.OK, answer.stderr
    assert [line for line in answer.stderr.splitlines() if line] == [f"{doing}: {done} of 620 records" for done in (0, 500, 620)]
    ((partition,),) = [one["partitions"] for one in json.loads(answer.stdout)]
    assert (partition["emitted"], partition["superseded"], partition["quarantined"], partition["overtaken"]) == (600, 18, 2, 1)


def test_a_failover_that_left_nothing_behind_is_not_asked_for(estate: Estate) -> None:
    answer = mrc(estate, "divergence", "export", "0000-xyz")
    error = json.loads(answer.stderr)["error"]
    assert error["code"] == "UNKNOWN_EXECUTION"
    assert "0000-abc" in error["message"]


def test_status_ends_with_findings_while_something_is_not_accounted_for(estate: Estate) -> None:
    assert mrc(estate, "divergence", "status").returncode == Exit.FINDINGS
    estate.world.accounted = True
    assert mrc(estate, "divergence", "status").returncode == Exit.OK
    (row,) = [line.split() for line in mrc(estate, "divergence", "status", output="table").stdout.splitlines() if "orders-0" in line]
    assert row == ["0000-abc", "listed", "orders-0", "untouched", "620", "620", "600", "18", "2", "0"]

"""``mrc rebuild``: records are deleted only for a reason that is kept, and the region's name is asked for."""

from __future__ import annotations

import json

from mrc.cli.exits import Exit
from tests.cli.running import run
from tests.control.estate import Estate


def test_the_loss_of_records_wants_a_reason_before_anybody_is_asked(estate: Estate) -> None:
    answer = run("-o", "json", "--config", str(estate.path), "rebuild", "west", "--allow-data-loss", "--reason", " ", "--yes")
    assert answer.returncode == Exit.USAGE
    assert "--reason" in json.loads(answer.stderr)["error"]["message"]
    assert estate.world.executions == {}


def test_a_plan_of_a_rebuild_opens_no_region_so_it_names_one_epoch(estate: Estate) -> None:
    shown = run("-o", "table", "--config", str(estate.path), "plan", "rebuild", "west", environment={"COLUMNS": "200"}).stdout
    (head,) = [line for line in shown.splitlines() if line.startswith("rebuild of")]
    assert "epoch" in head
    assert "->" not in head.partition("epoch")[2]

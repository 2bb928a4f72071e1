"""``mrc lag``: every flow, asked of its target's leader; what nobody can say is Unknown with the reason."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from mrc.cli.exits import Exit
from tests.cli.running import run
from tests.control.estate import Estate


def lag(estate: Estate) -> dict[str, dict[str, Any]]:
    answer = run("-o", "json", "lag", "--config", str(estate.path))
    assert answer.returncode == Exit.OK, answer.stderr
    return {f"{flow['source']}->{flow['target']}": flow for flow in json.loads(answer.stdout)}


def test_every_flow_is_measured_by_its_own_leader(estate: Estate) -> None:
    found = lag(estate)
    assert list(found) == ["east->west", "west->east"]
    for flow in found.values():
        assert flow["lag_records"]["value"] == 12
        first, second = flow["partitions"]
        assert (first["topic"], first["partition"], first["lag_seconds"]["value"]) == ("orders", 0, 0.4)
        assert second["lag_records"]["reason"] == "cluster-unreachable"


def test_a_flow_whose_leader_is_gone_is_unknown_with_the_reason(estate: Estate) -> None:
    estate.stop("east-a", "east-b")
    found = lag(estate)
    assert found["east->west"]["lag_records"]["value"] == 12
    gone = found["west->east"]
    assert (gone["wanted"], gone["partitions"]) == ("unknown", [])
    for reading in ("lag_records", "lag_seconds", "checkpoint_age_s"):
        assert gone[reading]["reason"] == "agent-unreachable"
        assert abs(gone[reading]["since_ms"] - time.time() * 1000) < 60_000
    shown = run("lag", "--config", str(estate.path)).stdout
    assert "? agent-unreachable" in shown


def test_a_region_without_a_leader_is_called_so(estate: Estate) -> None:
    estate.world.leaders["west"] = ""
    assert lag(estate)["east->west"]["lag_records"]["reason"] == "not-leader"


def test_without_any_agent_it_fails(estate: Estate) -> None:
    estate.stop()
    answer = run("-o", "json", "lag", "--config", str(estate.path))
    assert json.loads(answer.stderr)["error"]["code"] == "AGENT_UNREACHABLE"
    assert answer.returncode == Exit.WORLD


def test_watching_repeats_until_ctrl_c_which_is_no_failure(estate: Estate, tmp_path: Path) -> None:
    told = tmp_path / "stdout"
    with told.open("w") as stdout:
        command = [sys.executable, "-m", "mrc", "-o", "json", "lag", "--watch", "--config", str(estate.path)]
        watching = subprocess.Popen(command, stdout=stdout, stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[2])
    try:
        until_s = time.monotonic() + 30
        while told.read_text().count('"orders"') < 8:  # two flows, two partitions each, twice
            assert time.monotonic() < until_s
            time.sleep(0.1)
        watching.send_signal(signal.SIGINT)
        assert watching.wait(10) == Exit.OK
    finally:
        watching.kill()

"""``mrc history``: one execution that cannot be read hides no other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from mrc.cli.exits import Exit
from tests.cli.running import run
from tests.control.estate import Estate

PLACE = "/mrc/groups/orders/executions/garbled"


@pytest.fixture
def estate(tmp_path: Path) -> Iterator[Estate]:
    made = Estate(tmp_path)
    try:
        agent = made.agents[made.world.leaders["west"]]
        good = agent.start("orders", "switchover", "west", "token", "somebody", "because", False)
        told = f"GARBLED_RECORD: cannot read it as Plan: truncated (ZooKeeper {PLACE})"
        made.world.put(msgspec.structs.replace(good, id="garbled", kind="", source="", target="", status="unreadable", waits_for=told))
        yield made
    finally:
        made.stop()


def test_an_unreadable_execution_is_listed_with_its_place_beside_the_others(estate: Estate) -> None:
    answer = run("history", "--config", str(estate.path), environment={"COLUMNS": "250"})
    assert answer.returncode == Exit.OK, answer.stderr
    (line,) = (line for line in answer.stdout.splitlines() if line.strip().startswith("garbled"))
    assert "unreadable" in line
    assert PLACE in line
    assert "because" in answer.stdout


@pytest.mark.parametrize("verb", ["approve", "abort", "watch"])
def test_what_is_asked_of_an_unreadable_execution_is_refused_with_its_place(estate: Estate, verb: str) -> None:
    answer = run("-o", "json", verb, "garbled", "--config", str(estate.path))
    error = json.loads(answer.stderr)["error"]
    assert (error["code"], answer.returncode) == ("GARBLED_RECORD", Exit.WORLD)
    assert PLACE in error["message"]


@pytest.mark.parametrize("arguments", [("--archived",), ("--region", "west"), ("some-id", "--archived")])
def test_the_archive_is_one_regions_and_the_region_is_named(estate: Estate, arguments: tuple[str, ...]) -> None:
    answer = run("history", *arguments, "--config", str(estate.path))
    assert answer.returncode == Exit.USAGE
    assert "--archived and --region belong together" in answer.stderr

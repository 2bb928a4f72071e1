"""The start gate: open is said only when a majority says so, and every other answer keeps applications out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mrc.cli.exits import Exit
from mrc.cli.main import run as run_here
from mrc.core.errors import MrcError
from mrc.core.failover.fence import FenceRecord
from mrc.core.model import ActiveRecord, Epoch, Region, RegionState, encode
from mrc.ports import Binding
from mrc.sim.agents import REPLICATION_GROUP
from mrc.sim.clock import FakeClock
from mrc.sim.tree import Stored, TreeStore
from mrc.sim.world import EAST, WEST
from mrc.wiring import gate
from tests.cli.running import run
from tests.config.example import write_example

Call = Callable[[str], tuple[int, str, str]]

RECORD = f"/groups/{REPLICATION_GROUP}/record"


@pytest.fixture
def ensemble() -> TreeStore:
    """West is open, and one refusal is noted in east."""
    made = TreeStore(FakeClock())
    put(made, "open")
    noted = FenceRecord((Binding("topic", "orders", "literal", "User:producer", "write", "deny"),))
    made.nodes[f"/groups/{REPLICATION_GROUP}/fences/east"] = Stored(encode(noted))
    return made


def put(ensemble: TreeStore, state: RegionState) -> None:
    ensemble.nodes[RECORD] = Stored(encode(ActiveRecord(WEST, state, Epoch(7))))


def ask(ensemble: TreeStore, region: Region = WEST, timeout_s: float = 10.0) -> gate.Gate:
    return gate.ask(ensemble.connect(), ensemble.clock, REPLICATION_GROUP, region, ensemble.clock.monotonic_s() + timeout_s)


def test_only_the_region_that_the_record_names_open_is_open(ensemble: TreeStore) -> None:
    assert ask(ensemble, WEST) == gate.Gate(REPLICATION_GROUP, WEST, True, WEST, "open", Epoch(7), 0)
    assert ask(ensemble, EAST) == gate.Gate(REPLICATION_GROUP, EAST, False, WEST, "open", Epoch(7), 1)
    states: tuple[RegionState, ...] = ("draining", "closed")
    for state in states:
        put(ensemble, state)
        assert not ask(ensemble, WEST).open
        assert not ask(ensemble, EAST).open


def test_a_majority_that_comes_in_time_is_waited_for_and_none_is_an_error_at_the_deadline(ensemble: TreeStore) -> None:
    ensemble.quorum = False
    clock = ensemble.clock
    with pytest.raises(MrcError) as silent:
        ask(ensemble, timeout_s=10)
    assert silent.value.code == "ZOOKEEPER_UNREACHABLE"
    assert 9 <= clock.monotonic_s() <= 10

    def back() -> None:
        ensemble.quorum = clock.monotonic_s() > 15

    clock.meanwhile = back
    assert ask(ensemble, timeout_s=10).open
    assert 15 < clock.monotonic_s() < 17


@pytest.mark.parametrize(("data", "code"), [(None, "NO_ACTIVE_RECORD"), (b"{}", "GARBLED_RECORD")])
def test_what_no_waiting_mends_is_said_at_once(ensemble: TreeStore, data: bytes | None, code: str) -> None:
    del ensemble.nodes[RECORD]
    if data is not None:
        ensemble.nodes[RECORD] = Stored(data)
    with pytest.raises(MrcError) as refused:
        ask(ensemble)
    assert refused.value.code == code
    assert ensemble.clock.monotonic_s() == 0


def test_a_start_script_can_tell_that_nothing_could_be_read(tmp_path: Path) -> None:
    """Nobody listens there; the command ends with the world's code, in time, and says nothing on stdout."""
    path = write_example(tmp_path, {"connect: 127.0.0.1:2181,127.0.0.1:2182": "connect: 127.0.0.1:1"})
    began_s = time.monotonic()
    done = run("gate", "east", "--timeout", "1", "--output", "json", "--config", str(path))
    assert time.monotonic() - began_s < 20
    assert (done.returncode, done.stdout) == (Exit.WORLD, "")
    assert json.loads(done.stderr)["error"]["code"] == "ZOOKEEPER_UNREACHABLE"
    for wrong in (("north",), ("east", "--replication-group", "others")):
        assert run("gate", *wrong, "--config", str(path)).returncode == Exit.USAGE


@pytest.fixture
def call(ensemble: TreeStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run the command on the tree in memory; return its exit code, what it wrote and what it said."""
    path = write_example(tmp_path)

    monkeypatch.setattr(gate, "ZooKeeperTree", lambda *_: ensemble.connect())

    def call(region: str) -> tuple[int, str, str]:
        code = run_here(["gate", region, "--output", "json", "--config", str(path)])
        written = capsys.readouterr()
        return code, written.out, written.err

    return call


def test_groups_that_are_written_in_all_regions_keep_no_region_from_starting(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "mrc.yaml"
    head, orders = path.read_text().split("replication_groups:\n")
    changes = {
        "mode: active-passive": "mode: active-active",
        "policy: identity": "policy: default",
        "name: orders": "name: stock",
        "[orders, payments]": "[stock]",
        "[billing, shipping]": "[]",
        "mrc.orders.": "mrc.stock.",
    }
    stock = orders
    for old, new in changes.items():
        stock = stock.replace(old, new)
    path.write_text(f"{head}replication_groups:\n{orders}{stock}")
    code, out, err = call("west")
    assert (code, [one["replication_group"] for one in json.loads(out)], err) == (Exit.OK, ["orders"], "")
    path.write_text(f"{head}replication_groups:\n{stock}")
    code, out, err = call("west")
    assert (code, out) == (Exit.USAGE, "")
    assert json.loads(err)["error"]["code"] == "MODE_NOT_SUPPORTED"


def test_exit_codes_tell_a_start_script_what_to_do(call: Call) -> None:
    code, out, err = call("west")
    assert (code, json.loads(out)[0]["open"], err) == (Exit.OK, True, "")
    code, out, err = call("east")
    assert (code, json.loads(out)[0]["open"]) == (Exit.FINDINGS, False)
    assert "without the applications' listener" in err

"""``mrc version``: its own version always, the agents' where there is a configuration."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import mrc
from mrc.cli.exits import Exit
from mrc.core.views import VersionView
from tests.cli.running import run
from tests.control.estate import Agent, Estate


def versions(estate: Estate) -> dict[str, dict[str, object]]:
    answer = run("-o", "json", "version", "--config", str(estate.path))
    said = json.loads(answer.stdout)
    assert said["mrc"] == mrc.__version__
    return {agent["agent"]: {**agent, "exit": answer.returncode} for agent in said["agents"]}


def older(agent: Agent) -> None:
    """Let this agent be one of another version."""
    agent.version = lambda: VersionView(agent.name, agent.region, "0.0.9", agent.leads)  # type: ignore[method-assign]


def test_without_a_configuration_it_prints_its_own(tmp_path: Path) -> None:
    answer = run("-o", "json", "version", cwd=tmp_path)
    assert answer.returncode == Exit.OK
    assert json.loads(answer.stdout) == {"mrc": mrc.__version__, "python": json.loads(answer.stdout)["python"], "agents": []}
    assert answer.stderr == ""


def test_every_configured_agent_is_shown_with_its_version(estate: Estate) -> None:
    found = versions(estate)
    assert list(found) == ["east-a", "east-b", "west-a", "west-b"]
    assert {row["version"] for row in found.values()} == {mrc.__version__}
    assert [name for name, row in found.items() if row["leads"]] == ["east-b", "west-b"]
    assert {(row["differs"], row["error"], row["exit"]) for row in found.values()} == {(False, None, Exit.OK)}


def test_another_version_is_marked_and_is_a_finding(estate: Estate) -> None:
    older(estate.agents["west-a"])
    found = versions(estate)
    assert [name for name, row in found.items() if row["differs"]] == ["west-a"]
    assert found["west-a"]["exit"] == Exit.FINDINGS
    shown = run("version", "--config", str(estate.path)).stdout.splitlines()
    assert [line.split()[1:3] for line in shown if "differs" in line] == [["west-a", "0.0.9"]]


def test_an_agent_that_does_not_answer_is_shown_with_the_reason(estate: Estate) -> None:
    estate.stop("east-a")
    found = versions(estate)
    assert found["east-a"]["version"] is None
    assert found["east-a"]["error"] == {"code": "AGENT_UNREACHABLE", "message": found["east-a"]["error"]["message"]}  # type: ignore[index]
    assert found["east-a"]["exit"] == Exit.OK
    shown = run("version", "--config", str(estate.path)).stdout.splitlines()
    assert [line.split()[1:3] for line in shown if "AGENT_UNREACHABLE" in line] == [["east-a", "?"]]


def test_agents_that_say_nothing_cost_one_second_together(estate: Estate) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        text = estate.path.read_text()
        for name in ("east-a", "east-b"):
            text = text.replace(estate.world.addresses[name], address if name == "east-a" else address.replace("127.0.0.1", "localhost"))
        estate.path.write_text(text)
        began_s = time.monotonic()
        found = versions(estate)
        took_s = time.monotonic() - began_s
    assert [name for name, row in found.items() if row["version"] is None] == ["east-a", "east-b"]
    assert found["west-a"]["version"] == mrc.__version__
    assert took_s < 2.5


def test_a_configuration_that_was_named_must_be_there(tmp_path: Path) -> None:
    answer = run("-o", "json", "version", "--config", str(tmp_path / "none.yaml"))
    assert json.loads(answer.stdout)["mrc"] == mrc.__version__
    assert json.loads(answer.stderr)["error"]["code"] == "CONFIG_NOT_FOUND"
    assert answer.returncode == Exit.USAGE

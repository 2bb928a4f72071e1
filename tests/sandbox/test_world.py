"""The sandbox's verbs, with sleeping programs in place of servers: whatever was started, they leave a clean machine."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from mrc.cli.sandbox import sandbox as command
from mrc.core.errors import MrcError
from mrc.sandbox import jars, processes, world
from mrc.sandbox.layout import Options, Part
from mrc.sandbox.startup import Crew, GivenUp, Startup
from mrc.sandbox.world import Sandbox

SLEEP = ["/bin/sleep", "300"]


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    made = Sandbox(tmp_path / "sandbox")
    made.state.make(Options())
    yield made
    processes.end(made.state.folder, grace_s=0)


def pretend(sandbox: Sandbox, *parts: str) -> None:
    for part in parts:
        processes.spawn(sandbox.state.folder, part, SLEEP, sandbox.log_path(part))


def running(sandbox: Sandbox) -> list[str]:
    return sorted(processes.running(sandbox.state.folder))


def test_down_after_a_partial_start_ends_what_was_started(sandbox: Sandbox) -> None:
    pretend(sandbox, "east-zookeeper", "west-broker-1", "east-a", "traffic-producer")
    assert sorted(sandbox.down()) == ["east-a", "east-zookeeper", "traffic-producer", "west-broker-1"]
    assert running(sandbox) == []
    assert sandbox.down() == []


def test_servers_unpack_below_the_state_folder_and_down_removes_what_is_left(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(jars, "java", lambda: "/bin/false")
    monkeypatch.setattr(processes, "spawn", lambda folder, part, argv, *more: started.append(argv))
    startup = Startup(sandbox.layout, sandbox.state, sandbox.state.folder / "jars", lambda part, what: None)
    with pytest.raises(MrcError):
        startup.run(["east"])
    (given,) = {word for argv in started for word in argv if word.startswith("-Djava.io.tmpdir=")}
    temporary = Path(given.partition("=")[2])
    assert temporary.parent == sandbox.state.folder
    (temporary / "libzstd.so").write_text("")
    sandbox.down()
    assert not temporary.exists()


def test_down_without_its_state_file_ends_them_too(sandbox: Sandbox) -> None:
    pretend(sandbox, "east-broker-1")
    (sandbox.state.folder / "sandbox.json").unlink()
    assert sandbox.down() == ["east-broker-1"]


def test_down_keeps_data_and_wipe_removes_only_what_is_the_sandboxs(sandbox: Sandbox) -> None:
    sandbox.down()
    assert sandbox.layout.options == Options()
    (sandbox.state.folder / "notes.txt").write_text("mine")
    sandbox.down(wipe=True)
    assert [entry.name for entry in sandbox.state.folder.iterdir()] == ["notes.txt"]
    (sandbox.state.folder / "notes.txt").unlink()
    sandbox.down(wipe=True)
    assert not sandbox.state.folder.exists()


def test_kill_takes_the_region_with_its_zookeeper_and_agents(sandbox: Sandbox) -> None:
    east = ["east-a", "east-broker-1", "east-connect", "east-zookeeper"]
    pretend(sandbox, *east, "west-broker-1", "witness-zookeeper", "traffic-producer")
    assert sorted(sandbox.kill("east")) == east
    assert running(sandbox) == ["traffic-producer", "west-broker-1", "witness-zookeeper"]


def test_kill_can_spare_the_agents(sandbox: Sandbox) -> None:
    pretend(sandbox, "east-a", "east-broker-1")
    assert sandbox.kill("east", agents=False) == ["east-broker-1"]
    assert running(sandbox) == ["east-a"]


def test_agents_are_killed_one_by_one(sandbox: Sandbox) -> None:
    pretend(sandbox, "east-a", "east-b")
    sandbox.kill_agent("east-a")
    assert running(sandbox) == ["east-b"]
    assert sandbox.stop_agents() == ["east-b"]


def test_names_that_do_not_exist_are_refused(sandbox: Sandbox) -> None:
    with pytest.raises(MrcError) as region:
        sandbox.kill("north")
    with pytest.raises(MrcError) as agent:
        sandbox.kill_agent("east-z")
    assert (region.value.code, agent.value.code) == ("UNKNOWN_REGION", "BAD_REQUEST")


def test_without_a_sandbox_there_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(MrcError, match="no sandbox here") as refused:
        Sandbox(tmp_path / "nothing").status()
    assert refused.value.code == "SANDBOX_FAILED"
    assert not (tmp_path / "nothing").exists()


def test_two_commands_do_not_work_on_one_folder_at_once(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "LOCK_TIMEOUT_S", 0.1)
    with sandbox._locked(), pytest.raises(MrcError, match="another `mrc sandbox` command"):
        Sandbox(sandbox.state.folder).down()


def test_a_part_that_runs_is_not_started_again(sandbox: Sandbox) -> None:
    pretend(sandbox, "east-broker-1")
    before = processes.running(sandbox.state.folder)["east-broker-1"].pid
    Crew(sandbox.state).spawn(Part("east-broker-1", "east", "broker", 1), SLEEP)
    assert processes.running(sandbox.state.folder)["east-broker-1"].pid == before


def test_a_port_that_somebody_took_is_named(sandbox: Sandbox) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(MrcError, match=rf"port {port} of east-broker-1"):
            Crew(sandbox.state).spawn(Part("east-broker-1", "east", "broker", port), SLEEP)


def test_a_part_that_ends_by_itself_is_named_with_its_last_words_and_ends_the_other_waits(sandbox: Sandbox) -> None:
    crew = Crew(sandbox.state)
    part = Part("east-broker-1", "east", "broker", sandbox.layout.ports["east-broker-1.client"])
    crew.spawn(part, ["/bin/sh", "-c", "echo ERROR no room on disk; exit 1"])
    given_up = threading.Event()

    def other() -> None:
        try:
            crew.wait("west-broker-1", lambda: False)
        except GivenUp:
            given_up.set()
            raise

    pretend(sandbox, "west-broker-1")
    with pytest.raises(MrcError, match="ended by itself: ERROR no room on disk") as failed:
        crew.together([other, partial(crew.wait, part.name, lambda: False)])
    assert failed.value.where == str(sandbox.log_path("east-broker-1"))
    assert given_up.is_set()


def test_a_part_that_takes_too_long_is_an_error(sandbox: Sandbox) -> None:
    pretend(sandbox, "east-broker-1")
    with pytest.raises(MrcError, match="not ready after 0 s"):
        Crew(sandbox.state).wait("east-broker-1", lambda: False, timeout_s=0.1)


def test_without_java_there_is_one_clear_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MrcError, match="`java` is not installed") as refused:
        Sandbox(tmp_path / "sandbox").up()
    assert refused.value.code == "SANDBOX_FAILED"


def test_maven_is_needed_only_while_the_jars_are_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "java").write_text("#!/bin/sh\n")
    (tools / "java").chmod(0o755)
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.setenv("MRC_CACHE", str(tmp_path / "cache"))
    said: list[str] = []
    with pytest.raises(MrcError, match="`mvn` is not installed"):
        jars.fetch(said.append)
    jars.folder().mkdir(parents=True)
    assert jars.fetch(said.append) == jars.folder()


def test_a_fetch_that_fails_leaves_no_half_filled_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, script in {"java": "#!/bin/sh\n", "mvn": "#!/bin/sh\necho '[ERROR] no route'\nexit 1\n"}.items():
        (tools / name).write_text(script)
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/bin:/usr/bin")
    monkeypatch.setenv("MRC_CACHE", str(tmp_path / "cache"))
    with pytest.raises(MrcError, match="no route"):
        jars.fetch(lambda line: None)
    assert list((tmp_path / "cache" / "jars").iterdir()) == []


def run(sandbox: Sandbox, *arguments: str) -> str:
    result = CliRunner().invoke(command, ["--state", str(sandbox.state.folder), *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_status_shows_every_part_and_whatever_else_runs(sandbox: Sandbox) -> None:
    pretend(sandbox, "east-broker-1", "traffic-producer")
    states = {row.part: row.state for row in sandbox.status()}
    assert states["east-broker-1"] == "starting"
    assert states["west-broker-1"] == "down"
    assert states["traffic-producer"] == "up"
    assert "east-broker-1" in run(sandbox, "status")


def test_env_can_be_read_by_a_shell(sandbox: Sandbox) -> None:
    lines = run(sandbox, "env").splitlines()
    assert f"export MRC_CONFIG={sandbox.config_path}" in lines
    assert all(line.startswith("export MRC_") for line in lines)


def test_logs_show_the_tail_of_one_part_or_of_all(sandbox: Sandbox) -> None:
    sandbox.log_path("east-broker-1").write_text("first\nsecond\n")
    sandbox.log_path("west-broker-1").write_text("third\n")
    assert run(sandbox, "logs", "east-broker-1", "--tail", "1") == "second\n"
    assert run(sandbox, "logs") == "east-broker-1: first\neast-broker-1: second\nwest-broker-1: third\n"


def test_the_state_file_is_readable_json(sandbox: Sandbox) -> None:
    assert json.loads((sandbox.state.folder / "sandbox.json").read_text())["options"]["brokers"] == 1

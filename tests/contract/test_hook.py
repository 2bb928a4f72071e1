"""The contract of `Hook`: on real commands and addresses, and in memory where that makes a difference to callers."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Protocol

import pytest

from mrc.adapters.routing import CommandHook
from mrc.core.errors import MrcError
from mrc.ports import Hook
from mrc.sim.clock import FakeHook
from tests.contract.waiting import eventually

FACTS = {"region": "west", "kind": "failover"}


class HookStage(Protocol):
    """A hook, and what the other side of it does and sees."""

    hook: Hook

    @property
    def good(self) -> Sequence[str]:
        """argv of a command that succeeds."""

    @property
    def bad(self) -> Sequence[str]:
        """argv of a command that fails."""

    def address(self, status: int) -> str:
        """An address that answers with a status; 0: nobody is there."""

    def requests(self) -> list[tuple[str, dict[str, str]]]:
        """Method and facts of what was answered so far."""


class FakeStage:
    good, bad = ("good",), ("bad",)

    def __init__(self) -> None:
        self._fake = FakeHook()
        self.hook: Hook = self

    def run(self, argv: Sequence[str], facts: Mapping[str, str], timeout_s: float) -> str:
        self._fake.failing = int(argv == self.bad)
        return self._fake.run(argv, facts, timeout_s)

    def send(self, method: str, url: str, facts: Mapping[str, str], timeout_s: float) -> str:
        return self._fake.send(method, url, facts, timeout_s)

    def address(self, status: int) -> str:
        self._fake.statuses[f"http://{status}"] = status
        return f"http://{status}"

    def requests(self) -> list[tuple[str, dict[str, str]]]:
        return [(method, facts) for method, _, facts in self._fake.requests]


class RealStage:
    good, bad = ("true",), ("false",)

    def __init__(self, folder: Path, server: ThreadingHTTPServer) -> None:
        self.hook: Hook = CommandHook(folder)
        self._port = server.server_port
        self._seen: list[tuple[str, str, bytes]] = server.seen  # type: ignore[attr-defined] # what the handler below keeps

    def address(self, status: int) -> str:
        return f"http://127.0.0.1:{self._port if status else unused_port()}/{status}"

    def requests(self) -> list[tuple[str, dict[str, str]]]:
        return [(method, json.loads(body) if body else {}) for method, _, body in self._seen]


def unused_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
    return port


class Answers(BaseHTTPRequestHandler):
    """Answers with the status that the path names; a redirect leads to where 200 is answered."""

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append((self.command, self.path, body))  # type: ignore[attr-defined] # made by `serving`
        status = int(self.path.strip("/"))
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", "/200")
        text = b"" if status == 204 else b"said\n"
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer  # noqa: N815 - names of the base class

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.seen = []  # type: ignore[attr-defined] # what was asked, for the tests
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(params=["fake", "real"])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HookStage]:
    if request.param == "fake":
        yield FakeStage()
        return
    with serving() as server:
        yield RealStage(tmp_path, server)


def failed(call: Callable[[], object]) -> MrcError:
    with pytest.raises(MrcError) as raised:
        call()
    assert raised.value.code == "HOOK_FAILED"
    return raised.value


def test_a_command_succeeds_or_fails_and_a_failure_names_it(stage: HookStage) -> None:
    assert stage.hook.run(stage.good, FACTS, 10) == ""
    assert failed(lambda: stage.hook.run(stage.bad, FACTS, 10)).where == stage.bad[0]


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_is_success(stage: HookStage, status: int) -> None:
    stage.hook.send("POST", stage.address(status), FACTS, 10)
    assert stage.requests() == [("POST", FACTS)]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_the_facts_are_the_body_of_every_request_but_a_get(stage: HookStage, method: str) -> None:
    stage.hook.send(method, stage.address(200), FACTS, 10)
    stage.hook.send("GET", stage.address(200), FACTS, 10)
    assert stage.requests() == [(method, FACTS), ("GET", {})]


@pytest.mark.parametrize(
    ("status", "retryable"), [(301, False), (302, False), (307, False), (400, False), (404, False), (500, True), (503, True)]
)
def test_every_other_status_is_a_failure_and_a_redirect_is_not_followed(stage: HookStage, status: int, retryable: bool) -> None:
    url = stage.address(status)
    error = failed(lambda: stage.hook.send("POST", url, FACTS, 10))
    assert (error.where, error.retryable) == (url, retryable)
    assert f"status {status}" in error.message
    assert len(stage.requests()) == 1


def test_nobody_there_is_a_failure(stage: HookStage) -> None:
    assert failed(lambda: stage.hook.send("POST", stage.address(0), FACTS, 10)).retryable
    assert stage.requests() == []


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/", "http://user:word@127.0.0.1/", "127.0.0.1"])
def test_nothing_is_sent_to_what_is_no_web_address(tmp_path: Path, url: str) -> None:
    assert "http://" in failed(lambda: CommandHook(tmp_path).send("POST", url, FACTS, 10)).message


def test_an_answers_beginning_is_returned(tmp_path: Path) -> None:
    with serving() as server:
        assert CommandHook(tmp_path).send("POST", f"http://127.0.0.1:{server.server_port}/200", FACTS, 10) == "said\n"


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"], ids=["silent", "trickling"])
def test_no_server_holds_a_request_longer_than_its_time(tmp_path: Path, said: bytes) -> None:
    ended = threading.Event()

    def trickle(listening: socket.socket) -> None:
        one, _ = listening.accept()
        with one:
            one.sendall(said)
            while not ended.wait(0.1):
                if said:
                    one.send(b".")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=trickle, args=(listening,), daemon=True)
        thread.start()
        began_s = time.monotonic()
        try:
            error = failed(lambda: CommandHook(tmp_path).send("POST", f"http://127.0.0.1:{listening.getsockname()[1]}/", FACTS, 0.5))
        finally:
            ended.set()
            thread.join()
    assert time.monotonic() - began_s < 5
    assert (error.message, error.retryable) == ("no answer within 0.5 s", True)


def test_facts_arrive_as_json_on_standard_input_and_output_is_returned(tmp_path: Path) -> None:
    output = CommandHook(tmp_path).run([sys.executable, "-c", "import sys; print(sys.stdin.read())"], {"region": "west"}, 10)
    assert json.loads(output) == {"region": "west"}


def test_a_command_that_reads_nothing_is_fine(tmp_path: Path) -> None:
    assert CommandHook(tmp_path).run(["true"], {"region": "west" * 100_000}, 10) == ""


def test_a_failure_tells_the_last_line_of_standard_error(tmp_path: Path) -> None:
    with pytest.raises(MrcError, match="exit code 3: second") as raised:
        CommandHook(tmp_path).run(["sh", "-c", "echo first >&2; echo second >&2; exit 3"], {}, 10)
    assert raised.value.code == "HOOK_FAILED"


@pytest.mark.parametrize("argv", [[], ["./none"]])
def test_a_command_that_cannot_start_is_a_failure(tmp_path: Path, argv: list[str]) -> None:
    with pytest.raises(MrcError) as raised:
        CommandHook(tmp_path).run(argv, {}, 10)
    assert raised.value.code == "HOOK_FAILED"


def test_a_time_out_ends_the_command_and_its_children(tmp_path: Path) -> None:
    script = "sleep 60 & echo $! > child; wait"
    began_s = time.monotonic()
    with pytest.raises(MrcError) as raised:
        CommandHook(tmp_path).run(["sh", "-c", script], {}, 0.5)
    assert time.monotonic() - began_s < 5
    assert (raised.value.code, raised.value.retryable) == ("HOOK_FAILED", True)
    child = int((tmp_path / "child").read_text())
    # A killed child takes a moment to die, and is a zombie until its new parent collects it.
    state = Path(f"/proc/{child}/stat")
    eventually(lambda: None, lambda: not state.exists() or state.read_text().split()[2] == "Z", within_s=5)

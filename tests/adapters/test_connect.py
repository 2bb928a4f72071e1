"""What `ConnectReplicator` does about an exactly-once worker that has never known tasks of a flow, against a worker that is made up."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from mrc.adapters.mirrormaker import ConnectReplicator
from mrc.core.errors import MrcError
from mrc.core.model import Offset, TopicPartition

NAME = "mrc.orders.east-west"
SETTINGS = {
    "connector.class": "org.apache.kafka.connect.mirror.MirrorSourceConnector",
    "name": NAME,
    "source.cluster.alias": "east",
    "topics": "orders",
}
ORDERS = TopicPartition("orders", 0)
LEVEL = "source.consumer.metrics.recording.level"
NULL = 'Cannot invoke "java.lang.Integer.intValue()" because the return value of "ClusterConfigState.taskConfigGeneration(String)" is null'


class Worker:
    """One connector as Kafka 4.3's exactly-once worker keeps it (`KafkaConfigBackingStore`, `DistributedHerder`)."""

    def __init__(self) -> None:
        self.settings = dict(SETTINGS)
        self.state = "STOPPED"
        self.tasks = 0
        self.generation: int | None = None
        self.count: int | None = 0
        self.unfenced = True
        self.offsets: list[Any] = []
        self.copied = False
        self.hangs_up_at = -1
        """The request, counted from now, whose answer is lost, as all later ones are; negative: none is."""

    def ask(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        match method, path.removeprefix(f"/connectors/{NAME}"):
            case "GET", "/config":
                return 200, self.settings
            case "PUT", "/config":
                self.settings = body
                self._work()
                return 200, {}
            case "GET", "":
                return 200, {"tasks": [{"connector": NAME, "task": task} for task in range(self.tasks)]}
            case "PUT", "/resume":
                self.state = "RUNNING"
                self._commit(1)
                self.generation = 0 if self.generation is None else self.generation + 1
                self._work()
                return 202, {}
            case "PUT", "/stop":
                self.state = "STOPPED"
                self._commit(0)
                return 204, {}
            case "PATCH", "/offsets":
                return self._set(body["offsets"])
        raise AssertionError((method, path))

    def _commit(self, tasks: int) -> None:
        self.tasks, self.unfenced = tasks, True

    def _work(self) -> None:
        self.copied |= self.state == "RUNNING" and self.settings.get(LEVEL, "INFO") in ("INFO", "DEBUG", "TRACE")

    def _set(self, offsets: list[Any]) -> tuple[int, Any]:
        if self.state != "STOPPED" or self.tasks:
            return 400, {"message": "Connectors must be in the STOPPED state before their offsets can be modified."}
        if self.unfenced and self.count is not None and self.generation is None:
            return 500, {"message": NULL}
        self.count, self.unfenced = self.tasks, False
        self.offsets = offsets
        return 200, {}


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture
def url(worker: Worker) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, said = worker.ask(self.command, self.path, json.loads(body) if body else None)
            if worker.hangs_up_at >= 0:
                worker.hangs_up_at -= 1
                if worker.hangs_up_at < 0:
                    worker.hangs_up_at = 0
                    self.close_connection = True
                    return
            self.send_response(status)
            data = b"" if status == 204 else json.dumps(said).encode()
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PUT = do_PATCH = answer  # noqa: N815 # the names that the server looks for

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def asked_until_set(url: str) -> list[MrcError]:
    """Ask as agents do, anew after each retryable refusal; return the refusals."""
    refusals: list[MrcError] = []
    for _ in range(3):
        try:
            ConnectReplicator(url, 5.0).set_positions(NAME, {ORDERS: Offset(7)})
        except MrcError as error:
            if not error.retryable:
                raise
            refusals.append(error)
        else:
            return refusals
    raise AssertionError(refusals)


def test_a_flow_that_never_ran_is_set_at_the_second_asking_and_has_copied_nothing(worker: Worker, url: str) -> None:
    assert [error.code for error in asked_until_set(url)] == ["CONNECT_REFUSED"]
    assert worker.offsets == [{"partition": {"cluster": "east", "topic": "orders", "partition": 0}, "offset": {"offset": 6}}]
    assert (worker.state, worker.settings, worker.copied) == ("STOPPED", SETTINGS, False)


@pytest.mark.parametrize("request_number", range(11))
def test_an_agent_that_is_gone_at_any_request_is_followed_by_one_that_sets_the_flow(worker: Worker, url: str, request_number: int) -> None:
    worker.hangs_up_at = request_number
    with pytest.raises(MrcError):
        ConnectReplicator(url, 5.0).set_positions(NAME, {ORDERS: Offset(7)})
    worker.hangs_up_at = -1
    asked_until_set(url)
    assert worker.offsets[0]["offset"] == {"offset": 6}
    assert (worker.state, worker.settings, worker.copied) == ("STOPPED", SETTINGS, False)


def test_a_flow_that_is_resumed_after_an_agent_was_gone_runs_with_its_own_settings_alone(worker: Worker, url: str) -> None:
    worker.settings[LEVEL] = "no-task-begins"
    worker.state = "RUNNING"
    ConnectReplicator(url, 5.0).resume(NAME)
    assert (worker.state, worker.settings) == ("RUNNING", SETTINGS)


@pytest.mark.parametrize("settings", [{**SETTINGS, "connector.class": "org.example.Other"}, {**SETTINGS, LEVEL: "DEBUG"}])
def test_a_flow_whose_tasks_might_copy_is_not_made_to_run(worker: Worker, url: str, settings: dict[str, str]) -> None:
    worker.settings = dict(settings)
    with pytest.raises(MrcError, match="taskConfigGeneration"):
        ConnectReplicator(url, 5.0).set_positions(NAME, {ORDERS: Offset(7)})
    assert (worker.state, worker.settings, worker.copied) == ("STOPPED", settings, False)

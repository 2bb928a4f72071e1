"""What the end-to-end tests share: a state folder of their own, mrc as its operators run it, and what its answers say."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from mrc.config import load
from mrc.sandbox.judge import read_log
from mrc.sandbox.traffic import Traffic
from mrc.sandbox.world import Sandbox

BUILD = Path(__file__).resolve().parents[2] / "build" / "e2e"

POLL_S = 0.25
SESSION_S = 4.0
"""Of the sandbox's agents."""

IN_TIME_S = 240.0
"""What anything may take on a machine several times slower than it should be: tests find what never comes, not what comes late."""


def state(name: str) -> Path:
    """Return a fresh state folder; it stays when the test fails."""
    folder = BUILD / name
    if folder.exists():
        Sandbox(folder).down(wipe=True)
        shutil.rmtree(folder, ignore_errors=True)
    return folder


def command(sandbox: Sandbox, *arguments: str, output: str = "json") -> list[str]:
    """Return the command line of mrc on this sandbox."""
    return [sys.executable, "-m", "mrc", "--config", str(sandbox.config_path), "--output", output, *arguments]


def environment() -> dict[str, str]:
    """Return the environment in which mrc runs: tables are wide, as in a pipe."""
    return {**os.environ, "COLUMNS": "200"}


def mrc(sandbox: Sandbox, *arguments: str, output: str = "json") -> subprocess.CompletedProcess[str]:
    """Run a command of mrc to its end."""
    return subprocess.run(
        command(sandbox, *arguments, output=output), capture_output=True, text=True, timeout=IN_TIME_S, check=False, env=environment()
    )


def said(sandbox: Sandbox, *arguments: str) -> Any:
    """Return what a command wrote to stdout, decoded; it may end with findings."""
    done = mrc(sandbox, *arguments)
    assert done.returncode in (0, 3), done.stderr
    return json.loads(done.stdout)


def refusal(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Return the error object on stderr, behind whatever else was said there."""
    assert "{" in done.stderr, done
    error: dict[str, Any] = json.loads(done.stderr[done.stderr.index("{") :])["error"]
    return error


def eventually(holds: Callable[[], bool], otherwise: Callable[[], object] = lambda: "", timeout_s: float = IN_TIME_S) -> None:
    """Return as soon as it holds; fail with ``otherwise()`` when it does not in time."""
    until_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < until_s, otherwise()
        time.sleep(POLL_S)


def ready(sandbox: Sandbox, target: str, *words: str) -> None:
    """Wait until a switchover to ``target``, with these options, could be planned with exact positions."""
    last: list[subprocess.CompletedProcess[str]] = []

    def planned() -> bool:
        last[:] = [mrc(sandbox, "plan", "switchover", target, *words)]
        positions = json.loads(last[0].stdout)["positions"] if last[0].returncode == 0 else []
        return bool(positions) and all(p["translation"]["type"] == "exact" for p in positions)

    eventually(planned, lambda: last[0].stdout + last[0].stderr)


def begun(sandbox: Sandbox, *move: str) -> str:
    """Start a move and return its id; nobody follows it.

    It is asked for until it begins: a server that is late for a moment is reason enough to refuse one, and after a region's death
    ZooKeeper may have to elect a leader first.
    """
    token = uuid.uuid4().hex
    last: list[subprocess.CompletedProcess[str]] = []

    def accepted() -> bool:
        last[:] = [mrc(sandbox, *move, "--yes", "--no-wait", "--token", token)]
        return last[0].returncode == 4

    eventually(accepted, lambda: last[0].stdout + last[0].stderr)
    return str(json.loads(last[0].stdout)["id"])


def leader(sandbox: Sandbox, region: str) -> str:
    """Return the id of the agent that leads in a region, as soon as one does."""
    found: list[str] = []

    def elected() -> bool:
        found[:] = [str(r["leader"]) for r in said(sandbox, "status")["regions"] if r["region"] == region]
        return bool(found[0])

    eventually(elected)
    return found[0]


def execution(sandbox: Sandbox, id: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in said(sandbox, "history") if one["id"] == id)
    return found


def until_step(sandbox: Sandbox, id: str, step: str, *states: str) -> None:
    """Return as soon as a step is in one of these states."""

    def reached() -> bool:
        return next(s["state"] for s in execution(sandbox, id)["steps"] if s["name"] == step) in states

    eventually(reached, lambda: execution(sandbox, id))


def ended(sandbox: Sandbox, id: str, status: str) -> None:
    eventually(lambda: execution(sandbox, id)["status"] == status, lambda: execution(sandbox, id))


def pid(sandbox: Sandbox, part: str) -> int:
    found = next(one.pid for one in sandbox.status() if one.part == part)
    assert found is not None
    return found


def status(sandbox: Sandbox) -> Any:
    """What status shows, asked again for a while where ZooKeeper was too slow for it: it waits for no more than a glance."""
    until_s = time.monotonic() + 20.0
    while True:
        view = said(sandbox, "status")
        if "ZOOKEEPER_UNREACHABLE" not in {one["code"] for one in view["findings"]} or time.monotonic() > until_s:
            return view
        time.sleep(POLL_S)


def record(sandbox: Sandbox) -> tuple[str, str]:
    found = status(sandbox)["record"]
    return found["region"], found["state"]


def fence(sandbox: Sandbox, region: str) -> str:
    return str(next(one["fence"]["state"] for one in status(sandbox)["regions"] if one["region"] == region))


def in_transaction(sandbox: Sandbox, region: str, *, aborted_after_s: float) -> Producer:
    """Return a producer whose transaction, with one record on orders-0, is open: no fence is proved while it is."""
    settings = {"transactional.id": f"across-{region}", "transaction.timeout.ms": int(aborted_after_s * 1000)}
    producer = Producer({**sandbox.client_config(region, "producer"), **settings})
    producer.init_transactions(IN_TIME_S)
    producer.begin_transaction()
    producer.produce("orders", value=b"across", key=b"across", partition=0)
    assert producer.flush(IN_TIME_S) == 0
    return producer


def values(sandbox: Sandbox, region: str, topic: str, partition: int) -> dict[int, bytes | None]:
    """The values of the visible records of a partition up to its end of now, by offset."""
    return {offset: value for offset, (_, value) in records(sandbox, region, topic, partition).items()}


def records(sandbox: Sandbox, region: str, topic: str, partition: int) -> dict[int, tuple[bytes | None, bytes | None]]:
    """Keys and values of the visible records of a partition up to its end of now, by offset."""
    settings = {"group.id": "test-e2e", "enable.auto.commit": False, "isolation.level": "read_committed", "enable.partition.eof": True}
    consumer = Consumer({**sandbox.client_config(region, "admin"), **settings})
    found: dict[int, tuple[bytes | None, bytes | None]] = {}
    try:
        start, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=IN_TIME_S)
        consumer.assign([TopicPartition(topic, partition, start)])
        until_s = time.monotonic() + IN_TIME_S
        while start < end:
            assert time.monotonic() < until_s
            for message in consumer.consume(10_000, 0.2):
                error = message.error()
                if error is None:
                    start = int(message.offset() or 0) + 1
                    found[start - 1] = (message.key(), message.value())
                elif error.code() == KafkaError._PARTITION_EOF:
                    start = end
                else:
                    raise AssertionError(error)
        return found
    finally:
        consumer.close()


def found(sandbox: Sandbox) -> set[str]:
    """The codes of the findings that status shows."""
    return {finding["code"] for finding in status(sandbox)["findings"]}


def written_to(sandbox: Sandbox, region: str, value: bytes = b"unasked") -> str:
    """Try to write as an application that knows nothing of the record; return the name of the error, empty where it was acknowledged."""
    answers: list[str] = []
    producer = Producer({**sandbox.client_config(region, "producer"), "message.timeout.ms": 30_000})
    producer.produce("orders", value, value, partition=0, on_delivery=lambda error, _: answers.append(error.name() if error else ""))
    assert producer.flush(IN_TIME_S) == 0
    return answers[0]


def everything_is_accounted_for(sandbox: Sandbox, traffic: Traffic, active: str) -> None:
    """End the traffic; every event that any region acknowledged must be in the active one's log or in the ledger, and no group skipped any.

    Both are judged by what the traffic wrote down itself and by the log as a plain consumer reads it.
    """
    traffic.stop_producers()
    assert traffic.drain(IN_TIME_S)
    ledger = {
        (one["region"], r["topic"], r["partition"], offset)
        for one in said(sandbox, "divergence", "show")
        for r in one["ranges"]
        for offset in range(r["begin"], r["end"])
    }
    topics = list(load(sandbox.config_path).replication_groups[0].topics)
    log = read_log(sandbox.client_config(active, "admin"), topics, timeout_s=IN_TIME_S)
    present = {id for events in log.values() for _, id in events}
    told = traffic.logs().copy()
    assert told.acked
    missing = [ack for ack in told.acked if ack.id not in present and (ack.region, ack.topic, ack.partition, ack.offset) not in ledger]
    assert missing == []
    for group in traffic.groups():
        done = {line.id for line in told.processed if line.group == group}
        left_behind = {ack.id for ack in told.acked if (ack.region, ack.topic, ack.partition, ack.offset) in ledger}
        assert present - done - left_behind == set(), group

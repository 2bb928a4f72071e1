"""The documents' programs follow two moves, with every kind of route beside them; judged by what they printed and what the logs hold."""

from __future__ import annotations

import contextlib
import json
import struct
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from confluent_kafka import Consumer, Producer, TopicPartition

from mrc.ports import Route
from mrc.sandbox.layout import Options
from mrc.sandbox.world import Sandbox
from tests.contract.route_stages import EAST, WEST, DnsStage, HaproxyStage, haproxy, knot
from tests.docs.reading import ROOT, blocks
from tests.e2e.running import IN_TIME_S, begun, eventually, mrc, ready, record, refusal, said, state, status

pytestmark = pytest.mark.server

PACE_S = 0.01
WORD = "--attest-producers-restarted"


def examples() -> list[str]:
    """The programs of docs/clients.md: the producer, the consumer."""
    return [block.text for block in blocks((ROOT / "docs" / "clients.md").read_text()) if block.language == "python"]


class Program:
    """One of them, running; what it prints is kept."""

    def __init__(self, sandbox: Sandbox, text: str, user: str) -> None:
        folder = sandbox.config_path.parent
        self._errors = (folder / f"{user}.err").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-c", text, str(sandbox.config_path), user, str(folder / "secrets" / user)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def end(self, signal: int | None = None) -> int:
        """End it, by the end of its input or by a signal; return its exit code."""
        if signal is not None:
            self.process.send_signal(signal)
        code = self.process.wait(IN_TIME_S)
        self._reader.join(IN_TIME_S)
        self._errors.close()
        return code


class Feed:
    """Gives the producer a line now and then, until it is closed."""

    def __init__(self, program: Program) -> None:
        self.sent: list[str] = []
        self._program = program
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        pipe = self._program.process.stdin
        assert pipe is not None
        with contextlib.suppress(BrokenPipeError):  # a test that failed has ended the program
            while not self._end.wait(PACE_S):
                event = f"event-{len(self.sent)}"
                pipe.write(event + "\n")
                pipe.flush()
                self.sent.append(event)
            pipe.close()

    def close(self) -> None:
        self._end.set()
        self._thread.join(IN_TIME_S)


class Estate:
    def __init__(self, sandbox: Sandbox, routes: dict[str, Route], file: Path, ends: ExitStack) -> None:
        self.sandbox = sandbox
        self.routes = routes
        self.file = file
        self._ends = ends

    def run(self, text: str, user: str) -> Program:
        program = Program(self.sandbox, text, user)
        self._ends.callback(program.process.kill)
        return program

    def lead(self) -> dict[str, str]:
        """Where every route leads, asked without mrc's agents."""
        return {**{name: route.read().region for name, route in self.routes.items()}, "command": self.file.read_text().strip()}


@pytest.fixture(scope="module")
def estate() -> Iterator[Estate]:
    folder = state("clients")
    sandbox = Sandbox(folder)
    with ExitStack() as stack:
        stack.callback(sandbox.down)
        sandbox.up(Options())
        places = {name: folder / name for name in ("haproxy", "knot")}
        for place in places.values():
            place.mkdir()
        address = stack.enter_context(haproxy(places["haproxy"], 1))
        port = stack.enter_context(knot(places["knot"]))
        dns = DnsStage(port, "kafka.example.")
        file = folder / "route"
        file.write_text("east")
        (folder / "secrets" / "dns.key").write_text(f'key "mrc" {{ algorithm hmac-sha256; secret "{DnsStage.SECRET}"; }};\n')
        settings = yaml.safe_load(sandbox.config_path.read_text())
        write = f"import json, sys; open({str(file)!r}, 'w').write(json.load(sys.stdin)['target'])"
        settings["replication_groups"][0]["routing"] = {
            "command": [sys.executable, "-c", write],
            "read_back": ["cat", str(file)],
            "dns": [
                {
                    "server": f"127.0.0.1:{port}",
                    "zone": "example.",
                    "name": "kafka.example.",
                    "values": {region: list(dns.values[region]) for region in (EAST, WEST)},
                    "key_file": "secrets/dns.key",
                }
            ],
            "haproxy": [{"address": address, "backend": "kafka-0", "servers": {"east": ["east-1", "east-2"], "west": ["west-1"]}}],
        }
        sandbox.config_path.write_text(yaml.safe_dump(settings, sort_keys=False))
        proxy = HaproxyStage(places["haproxy"], address, "kafka-0")
        proxy.lead(EAST)
        sandbox.start_agents()
        yield Estate(sandbox, {"dns": dns.route, "haproxy": proxy.route}, file, stack)


def batches(folder: Path, region: str) -> list[tuple[int, range, int]]:
    """Partition, offsets and producer id of each batch of `orders`, read from the brokers' own files (KIP-98's format)."""
    found = set()
    for log in folder.glob(f"data/{region}-*/**/orders-*/*.log"):
        data, at = log.read_bytes(), 0
        while at + 61 <= len(data):
            base, length = struct.unpack_from(">qi", data, at)
            last = struct.unpack_from(">i", data, at + 23)[0]
            found.add((int(log.parent.name.rpartition("-")[2]), range(base, base + last + 1), struct.unpack_from(">q", data, at + 43)[0]))
            at += 12 + length
    return sorted(found, key=lambda one: (one[0], one[1].start))


def decoys(sandbox: Sandbox, region: str, count: int) -> None:
    """As many idempotent producers of somebody else's write one record each to the partition of the program's."""
    made = [Producer({**sandbox.client_config(region, "producer"), "enable.idempotence": True, "log_level": 0}) for _ in range(count)]
    for one in made:
        one.produce("orders", uuid.uuid4().hex.encode(), b"key")  # records that look the same would leave positions bounded
    for one in made:
        assert one.flush(30) == 0
        one.close()


def log(sandbox: Sandbox, region: str) -> dict[tuple[int, int], bytes]:
    """Every record of `orders`, by partition and offset."""
    config = {
        **sandbox.client_config(region, "admin"),
        "group.id": "test-clients",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
    }
    consumer = Consumer({**config, "auto.offset.reset": "earliest"})
    partitions = consumer.list_topics("orders", timeout=30).topics["orders"].partitions
    consumer.assign([TopicPartition("orders", partition, 0) for partition in partitions])
    found: dict[tuple[int, int], bytes] = {}
    ended = 0
    until_s = time.monotonic() + IN_TIME_S
    while ended < len(partitions):
        assert time.monotonic() < until_s
        for message in consumer.consume(10_000, 0.5):
            if message.error() is None:
                found[(int(message.partition() or 0), int(message.offset() or 0))] = message.value() or b""
            else:
                ended += 1
    consumer.close()
    return found


def moved(estate: Estate, target: str) -> list[str]:
    """Move with a person's words for the producers; return what the journal says of the step `route`."""
    sandbox, before = estate.sandbox, estate.lead()
    refused = mrc(sandbox, "switchover", target, "--yes")
    assert refusal(refused)["code"] == "PRODUCERS_CARRIED", refused.stderr
    execution = begun(sandbox, "switchover", target, WORD)
    last: list[Any] = []

    def waits() -> bool:
        last[:] = [one for one in said(sandbox, "history") if one["id"] == execution]
        assert last[0]["status"] in ("running", "doing", "verifying", "proving", "waiting"), last
        return any(step["name"] == "route" and step["state"] == "waiting" for step in last[0]["steps"])

    eventually(waits, lambda: last)
    assert record(sandbox) == (target, "open")
    assert estate.lead() == before, "nobody was redirected before it was approved"
    assert mrc(sandbox, "approve", execution, "--reason", "all stopped").returncode == 0
    watched = mrc(sandbox, "watch", execution)
    assert json.loads(watched.stdout)["status"] == "succeeded", watched.stderr
    assert set(estate.lead().values()) == {target}
    return [entry["detail"] for entry in said(sandbox, "history", execution)]


def test_what_was_acknowledged_is_there_and_all_of_it_was_read_whatever_is_redirected(estate: Estate) -> None:
    sandbox, folder = estate.sandbox, estate.sandbox.config_path.parent
    producing, consuming = examples()
    decoys(sandbox, "east", 10)  # so that the program's producer id is one that west comes to as well
    producer, consumer = estate.run(producing, "producer"), estate.run(consuming, "consumer")
    feed = Feed(producer)
    assert [one for one in status(sandbox)["findings"] if one["code"] == "ROUTE_ELSEWHERE"] == []

    def acked(region: str) -> int:
        return sum(line.split()[1] == region for line in list(producer.lines))

    eventually(lambda: acked("east") > 100 and len(consumer.lines) > 50)
    ready(sandbox, "west", WORD)
    told = moved(estate, "west")
    assert any("attests that producers are started anew" in one for one in told)
    eventually(lambda: acked("west") > 100)
    estate.file.write_text("east")
    HaproxyStage(folder / "haproxy", f"{folder}/haproxy/admin.sock", "kafka-0").lead(EAST)
    eventually(lambda: set(estate.lead().values()) == {"west"})

    def ours(region: str) -> set[int]:
        """The producer ids under which the program's acknowledged records stand in a region."""
        words = [line.split() for line in list(producer.lines)]
        spots = {(int(partition), int(offset)) for _, where, partition, offset in words if where == region}
        return {id for partition, offsets, id in batches(folder, region) if any((partition, offset) in spots for offset in offsets)}

    here = ours("east")
    assert here
    for _ in range(20):
        if here & {id for _, _, id in batches(folder, "west")}:
            break
        decoys(sandbox, "west", 5)
    assert here & {id for _, _, id in batches(folder, "west")}, "the program's producer id of east is somebody's in west"
    ready(sandbox, "east", WORD)
    before = acked("east")
    moved(estate, "east")
    eventually(lambda: acked("east") > before + 100)
    feed.close()
    assert producer.end() == 0
    events = dict.fromkeys(line.split()[0] for line in producer.lines)
    assert list(events) == feed.sent, "each was acknowledged, in the order of its sending"
    logs = {region: log(sandbox, region) for region in ("east", "west")}
    for line in producer.lines:
        event, region, partition, offset = line.split()
        assert logs[region][(int(partition), int(offset))] == event.encode(), line
    assert set(events) <= {value.decode() for value in logs["east"].values()}
    eventually(lambda: set(events) <= set(consumer.lines), lambda: sorted(set(events) - set(consumer.lines))[:10])
    began_s = time.monotonic()
    assert consumer.end(2) == 0
    assert time.monotonic() - began_s < 30
    assert "Traceback" not in (folder / "consumer.err").read_text()

"""The steps that cases are made of. Each acts on all partitions of a case's topic, so that every position has a log like the others'."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from mrc.sandbox.startup import answers
from tests.conformance.logs import records as read_records
from tests.conformance.stage import Headers, Stage, Topic, eventually

Step = Callable[[Stage, Topic], None]

HEADERS: Headers = [("trace", b"\x00\xff\x01"), ("tenant", b"a"), ("tenant", b"b"), ("none", None)]
DROP: Headers = [("drop", b"1")]
"""Header by which the filter of a transformation drops records."""

QUICK_COMPACTION = {
    "cleanup.policy": "compact",
    "segment.ms": "100",
    "min.cleanable.dirty.ratio": "0.001",
    "max.compaction.lag.ms": "100",
    "delete.retention.ms": "100",
}
COMPACTED_S = 160.0

SOME = 20
"""So many checkpoints tell that an agent is at work."""
KEYS = 10

AN_HOUR_AGO_MS = int(time.time() * 1000) - 3_600_000
"""Records with a time of their own have one from here on: what is much older is deleted by retention."""


def write(
    count: int,
    *,
    only: Collection[int] | None = None,
    keys: int | None = None,
    headers: Headers | None = None,
    some_headers: int = 0,
    timestamps: Callable[[int], int] | None = None,
    lost: bool = False,
    value: Callable[[str], bytes | None] = str.encode,
) -> Step:
    """Write records with ids of their own.

    Args:
        only: these partitions.
        keys: so many different keys; each record has its own where left out.
        some_headers: headers go to every so-manieth record only; to all where 0.
        timestamps: of the n-th record; the producer's clock where left out.
        lost: MirrorMaker is not to copy them.
        value: made of the id.
    """

    def step(stage: Stage, topic: Topic) -> None:
        for number in range(count):
            for partition in range(topic.partitions):
                if only is not None and partition not in only:
                    continue
                id = stage.id(topic, partition)
                key = id if keys is None else f"{partition}-{number % keys}"
                content = value(id)
                if lost:
                    stage.lost.add(id)
                carried = headers if some_headers == 0 or number % some_headers == some_headers // 2 else None
                stamp = timestamps(number) if timestamps else 0
                stage.send(topic.name, partition, key.encode(), content, timestamp_ms=stamp, headers=carried)
        stage.flush()

    return step


def same(count: int) -> Step:
    """Write records that are all the same: timestamp, key, value."""

    def step(stage: Stage, topic: Topic) -> None:
        for _ in range(count):
            for partition in range(topic.partitions):
                stage.send(topic.name, partition, b"same", b"same", timestamp_ms=AN_HOUR_AGO_MS)
        stage.flush()

    return step


def transaction(count: int, *, commit: bool = True, name: str = "test-conformance", lost: bool | None = None, end: bool = True) -> Step:
    """Write records in one transaction and end it; each partition gets its marker."""

    def step(stage: Stage, topic: Topic) -> None:
        producer = stage.open_transaction(name)
        for _ in range(count):
            for partition in range(topic.partitions):
                id = stage.id(topic, partition)
                if (not commit) if lost is None else lost:
                    stage.lost.add(id)
                stage.send(topic.name, partition, id.encode(), id.encode(), producer=producer)
        stage.flush(producer=producer)
        if end and commit:
            producer.commit_transaction(20)
        elif end:
            producer.abort_transaction(20)

    return step


def foreign(count: int) -> Step:
    """Write records of somebody else's into the mirrored topic."""

    def step(stage: Stage, topic: Topic) -> None:
        for number in range(count):
            for partition in range(topic.partitions):
                own = f"foreign/{topic.target}/{partition}/{time.monotonic_ns()}/{number}".encode()
                stage.send(topic.target, partition, own, own, region="west")
        stage.flush("west")

    return step


def lookalikes(count: int) -> Step:
    """Let somebody else write into the mirror what the source is about to write: the very same records."""

    def step(stage: Stage, topic: Topic) -> None:
        for partition in range(topic.partitions):
            ids = [stage.id(topic, partition).encode() for _ in range(count)]
            for number, id in enumerate(ids):
                stage.send(topic.target, partition, id, id, timestamp_ms=AN_HOUR_AGO_MS + number, region="west")
            stage.flush("west")
            for number, id in enumerate(ids):
                stage.send(topic.name, partition, id, id, timestamp_ms=AN_HOUR_AGO_MS + number)
        stage.flush()

    return step


def trim(start: int) -> Step:
    """Delete everything below an offset in the source."""

    def step(stage: Stage, topic: Topic) -> None:
        wanted = [(topic.name, partition) for partition in range(topic.partitions)]
        found, _ = read_records(stage.config("east"), wanted, "read_committed")
        stage.headless |= {(r.value or b"").decode() for rows in found.values() for r in rows if r.offset < start}
        stage.trim(topic.name, topic.partitions, start)

    return step


def compacted(region: str, below: int) -> Step:
    """Let a topic be compacted, and return when no record is left below an offset."""

    def step(stage: Stage, topic: Topic) -> None:
        name = topic.name if region == "east" else topic.target
        stage.configure(region, name, QUICK_COMPACTION)
        wanted = [(name, partition) for partition in range(topic.partitions)]

        def gone() -> bool:
            # Only closed segments are compacted, and only a record closes one.
            if region == "east":
                write(1)(stage, topic)
            else:
                foreign(1)(stage, topic)
            found, _ = read_records(stage.config(region), wanted, "read_committed")
            return all(r.offset >= below for rows in found.values() for r in rows)

        eventually(gone, f"{name} was compacted in {region}", COMPACTED_S, every_s=0.5)

    return step


def rewound(connector: str, last_copied: int | None) -> Step:
    """Stop a connector, let it go on behind an offset (None: from the start), resume it."""

    def step(stage: Stage, topic: Topic) -> None:
        stage.stop(connector)
        if last_copied is None:
            stage.rest("DELETE", f"/connectors/{connector}/offsets")
        else:
            stage.set_positions(connector, {(topic.name, partition): last_copied for partition in range(topic.partitions)})
        stage.resume(connector)

    return step


def restarted(connector: str) -> Step:
    """Restart a connector with its tasks."""

    def step(stage: Stage, topic: Topic) -> None:
        stage.rest("POST", f"/connectors/{connector}/restart?includeTasks=true&onlyFailed=false")
        eventually(lambda: stage.running(connector), f"{connector} runs")

    return step


def paused(connector: str) -> Step:
    """Pause a connector: it copies nothing from then on."""

    def step(stage: Stage, topic: Topic) -> None:
        stage.rest("PUT", f"/connectors/{connector}/pause")
        eventually(lambda: set(stage.tasks(connector)[1]) == {"PAUSED"}, f"{connector} is paused")

    return step


def until_copied(stage: Stage, topic: Topic) -> None:
    """Write a record now and then until one is copied to each partition: from then on a flow from latest follows."""
    wanted = [(topic.target, partition) for partition in range(topic.partitions)]

    def copied() -> bool:
        write(1, lost=True)(stage, topic)
        found, _ = read_records(stage.config("west"), wanted, "read_committed")
        return all(found.values())

    eventually(copied, f"{topic.name} is copied from latest", every_s=0.3)


def worker_killed(before_s: float = 1.5, after_s: float = 0.3) -> Step:
    """Kill MirrorMaker's worker under steady traffic, and start it again: what it had not flushed it copies again."""

    def step(stage: Stage, topic: Topic) -> None:
        stop = threading.Event()

        def traffic() -> None:
            while not stop.wait(0.01):
                write(4)(stage, topic)

        thread = threading.Thread(target=traffic)
        thread.start()
        try:
            time.sleep(before_s)  # traffic that MirrorMaker follows
            worker = next(part for part in stage.sandbox.status() if part.part == "west-connect")
            assert worker.pid is not None
            os.kill(worker.pid, 9)
            eventually(lambda: not answers(worker.port), "the worker is gone")
            time.sleep(after_s)  # traffic that nobody copies yet
        finally:
            stop.set()
            thread.join(30)
        stage.sandbox.start("west")

    return step


def connected(connector: str) -> Step:
    """Make a connector only now, when the agent has answered for others: of this one it cannot know how it reads, and says nothing."""

    def step(stage: Stage, topic: Topic) -> None:
        where = ("mrc.checkpoints.east.internal", 0)

        def captured() -> list[bytes]:
            found, _ = read_records(stage.config("west"), [where], "read_committed")
            return [record.key for record in found[where] if record.key and b"conf-" in record.key]

        eventually(lambda: len(captured()) > SOME, "there are checkpoints on other topics")
        assert not [key for key in captured() if topic.name.encode() in key]
        stage.post(connector)
        eventually(lambda: stage.running(connector), f"{connector} runs")

    return step


def back_from_the_target(stage: Stage, topic: Topic) -> None:
    """Write in west, let that be copied to east under the default policy, and commit there on the copies."""
    mirror = f"west.{topic.name}"
    stage.make("west", {topic.name: (1, {})})
    for number in range(20):
        id = f"back/{topic.name}/{number}".encode()
        stage.send(topic.name, 0, id, id, region="west")
    stage.flush("west")
    stage.post("conf.back", region="east")

    def copied() -> bool:
        if mirror not in stage.admin("east").list_topics(timeout=60).topics:
            return False
        found, _ = read_records(stage.config("east"), [(mirror, 0)], "read_committed")
        return len(found[mirror, 0]) == 20

    eventually(copied, f"{mirror} is copied")
    stage.commit(f"test-{topic.name.removeprefix('conf-')}", {(mirror, 0): 10})


def source_made_anew(stage: Stage, topic: Topic) -> None:
    """Delete the source topic and make one of the same name."""
    stage.delete("east", topic.name)
    topic.life += 1
    stage.make("east", {topic.name: (topic.partitions, {})})
    stage.told("east", topic.name, topic.partitions)


def target_made_anew(stage: Stage, topic: Topic) -> None:
    """Delete the mirror and make one of the same name: what was copied is gone, and MirrorMaker goes on behind it."""
    wanted = [(topic.name, partition) for partition in range(topic.partitions)]
    found, _ = read_records(stage.config("east"), wanted, "read_committed")
    stage.lost |= {(r.value or b"").decode() for rows in found.values() for r in rows}
    stage.delete("west", topic.target)
    stage.make("west", {topic.target: (topic.partitions, {})})


def grown(partitions: int) -> Step:
    """Add partitions in the source."""

    def step(stage: Stage, topic: Topic) -> None:
        stage.grow("east", topic.name, partitions)
        topic.partitions = partitions

    return step


def commits(group: str, positions: Mapping[int, int]) -> Step:
    """Commit positions early; the case's own follow later."""

    def step(stage: Stage, topic: Topic) -> None:
        stage.commit(group, {(topic.name, partition): offset for partition, offset in positions.items()})

    return step


def also(act: Callable[[Stage, Topic], Any]) -> Step:
    """Return something else as a step."""

    def step(stage: Stage, topic: Topic) -> None:
        act(stage, topic)

    return step

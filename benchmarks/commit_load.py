"""The load of `benchmarks/capture.py`: one process that writes records and commits for many groups, in one loop.

A process of its own, so that neither what it does nor what the benchmark reads holds the other up. Every acknowledged commit is noted
with the time at which the acknowledgement came, by the clock that all processes of a machine share (``time.monotonic``); the record's
layout is `ACK`. A commit that the broker refuses is noted with the offset -1.
"""

from __future__ import annotations

import argparse
import random
import signal
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from mrc.sandbox.world import Sandbox

SEED = 7
VALUE = b"x" * 100
COMMIT_EVERY_S = 1.0
FLUSH_EVERY_S = 0.5
TICK_S = 0.002

ACK = struct.Struct("<dHHq")
"""When it was acknowledged (monotonic seconds), the group's number, the partition, the committed offset."""


class Ack(NamedTuple):
    """One partition of one acknowledged commit."""

    at_s: float
    group: int
    partition: int
    offset: int


def read_acks(path: Path) -> Iterator[Ack]:
    """Yield what was noted, in the order of the acknowledgements; a record that was cut short is left out."""
    data = path.read_bytes()
    whole = len(data) - len(data) % ACK.size
    return (Ack(*row) for row in ACK.iter_unpack(data[:whole]))


def group_name(number: int) -> str:
    """Return a group's name; the sandbox lets applications use names that begin so."""
    return f"bench-{number:03d}"


def behind(groups: int, partitions: int, behind_max: int) -> list[list[int]]:
    """Return how many records each group stays behind the head of each partition: from 0 to ``behind_max``, the same in every run."""
    choose = random.Random(SEED)
    return [[choose.randint(0, behind_max) for _ in range(partitions)] for _ in range(groups)]


def next_turn(turn: int, groups: int, elapsed_s: float) -> int:
    """Return the turn to take after ``turn``, which is at most one period late: a client that was held up does not catch up."""
    return max(turn + 1, int((elapsed_s / COMMIT_EVERY_S - 1) * groups))


class Load:
    """Writes and commits until it is told to stop.

    Args:
        east: librdkafka's settings for somebody who may do both.
        rate: records per second, over all partitions in turn.
        out: where acknowledged commits are noted.
    """

    def __init__(self, east: Mapping[str, str], topic: str, groups: int, partitions: int, rate: float, behind_max: int, out: Path) -> None:
        self._topic = topic
        self._rate = rate
        self._producer = Producer({**east, "linger.ms": 5, "enable.idempotence": True})
        self._admin = AdminClient(dict(east))
        self._behind = behind(groups, partitions, behind_max)
        self._heads = [0] * partitions
        self._committed = [[-1] * partitions for _ in range(groups)]
        self._out = out
        self._acks: deque[bytes] = deque()  # filled by the driver's thread, emptied by the loop
        self._unanswered: set[int] = set()
        self._failure = ""

    def run(self, stop: threading.Event) -> None:
        """Make the load. Raises RuntimeError when a record could not be written."""
        began_s = time.monotonic()
        sent, turn, flushed_s = 0, 0, began_s
        groups = len(self._behind)
        with self._out.open("ab") as file:
            while not stop.is_set() and not self._failure:
                now_s = time.monotonic()
                sent = self._write(sent, int((now_s - began_s) * self._rate))
                self._producer.poll(0)
                if now_s - began_s >= turn * COMMIT_EVERY_S / groups:
                    self._commit(turn % groups)
                    turn = next_turn(turn, groups, now_s - began_s)
                    continue
                if now_s - flushed_s >= FLUSH_EVERY_S:
                    flushed_s = now_s
                    self._note(file)
                stop.wait(TICK_S)
            self._producer.flush(10)
            self._note(file)
        if self._failure:
            raise RuntimeError(f"a record could not be written: {self._failure}")

    def _note(self, file: BinaryIO) -> None:
        file.write(b"".join(self._acks.popleft() for _ in range(len(self._acks))))
        file.flush()

    def _write(self, sent: int, due: int) -> int:
        while sent < due:
            try:
                self._producer.produce(self._topic, VALUE, str(sent).encode(), sent % len(self._heads), on_delivery=self._written)
            except BufferError:
                break  # what falls due meanwhile is made up for when there is room, or it shows as a shortfall
            sent += 1
        return sent

    def _written(self, error: object, message: Message) -> None:
        if error is not None:
            self._failure = str(error)
        else:
            self._heads[message.partition() or 0] = (message.offset() or 0) + 1

    def _commit(self, group: int) -> None:
        """Commit for one group where its positions have moved; never backwards, and never beyond what is acknowledged.

        As a client does, it waits for the answer to its last commit first. Left to pile up, answers would come after the driver's time-out,
        and that ends the process (an assertion of librdkafka's).
        """
        if group in self._unanswered:
            return
        done = self._committed[group]
        rows = {
            p: head - back for p, (head, back) in enumerate(zip(self._heads, self._behind[group], strict=True)) if head - back > done[p]
        }
        if not rows:
            return
        for partition, offset in rows.items():
            done[partition] = offset
        self._unanswered.add(group)
        name = group_name(group)
        request = ConsumerGroupTopicPartitions(name, [TopicPartition(self._topic, p, offset) for p, offset in rows.items()])
        future = self._admin.alter_consumer_group_offsets([request], request_timeout=30)[name]
        future.add_done_callback(lambda ended: self._acknowledged(group, rows, ended))

    def _acknowledged(self, group: int, rows: Mapping[int, int], ended: Future[Any]) -> None:
        """Note the answer; called by the driver as it comes."""
        at_s = time.monotonic()
        try:
            answered = ended.result(timeout=0).topic_partitions
        except KafkaException:
            answered = []
        # The call as a whole succeeds even where the broker refuses: the error sits with each partition.
        self._unanswered.discard(group)
        accepted = {wire.partition for wire in answered if wire.error is None}
        self._acks.extend(ACK.pack(at_s, group, p, offset if p in accepted else -1) for p, offset in rows.items())


def main() -> int:
    """Make the load until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.commit_load", description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="the sandbox's state folder")
    parser.add_argument("--out", type=Path, required=True, help="where acknowledged commits are noted")
    parser.add_argument("--topic", required=True)
    parser.add_argument("--groups", type=int, required=True)
    parser.add_argument("--partitions", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True, help="records per second")
    parser.add_argument("--behind-max", type=int, required=True, help="how far groups stay behind the head at most")
    asked = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    east = Sandbox(asked.state).client_config("east", "admin")
    Load(east, asked.topic, asked.groups, asked.partitions, asked.rate, asked.behind_max, asked.out).run(stop)
    return 0


if __name__ == "__main__":
    sys.exit(main())

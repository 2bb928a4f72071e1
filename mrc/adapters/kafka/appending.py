"""Appending to mrc's own topics: in order, once, acknowledged by every in-sync replica."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from mrc.adapters.kafka.access import DRIVER_LOG, Access
from mrc.adapters.kafka.errors import Complaints, unreachable, world_error


class Appender:
    """One idempotent producer, kept until an append fails. Safe for several threads; appends do not interleave."""

    def __init__(self, access: Access, region: str, deadline_s: float) -> None:
        self._access = access
        self._region = region
        self._deadline_s = deadline_s
        self._lock = threading.Lock()
        self._complaints = Complaints()
        self._producer: Producer | None = None

    def append(self, topic: str, entries: Sequence[tuple[bytes, bytes | None]], partition: int = 0) -> None:
        """Append to one partition. When it raises, any of the entries may have been appended, in their order."""
        if not entries:
            return
        with self._lock:
            try:
                self._append(topic, entries, partition)
            except BaseException:
                # What is still queued must not arrive after a later append; an idempotent producer is not used after an error.
                self._drop()
                raise

    def close(self) -> None:
        """Drop the producer; appends have been flushed already."""
        with self._lock:
            self._drop()

    def _append(self, topic: str, entries: Sequence[tuple[bytes, bytes | None]], partition: int) -> None:
        producer = self._producer = self._producer or self._connect()
        producer.poll(0)
        began_s = time.monotonic()
        until_s = began_s + self._deadline_s
        failures: list[KafkaError] = []

        def delivered(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                failures.append(error)

        for key, value in entries:
            while True:
                try:
                    producer.produce(topic, key=key, value=value, partition=partition, on_delivery=delivered)
                    break
                except KafkaException as error:
                    raise world_error(error.args[0], f"{self._region} {topic}") from None
                except BufferError:
                    producer.poll(0.02)
                    self._check(began_s, until_s, topic)
        while len(producer) and not failures:
            producer.flush(0.05)
            if len(producer):
                self._check(began_s, until_s, topic)
        if failures:
            self._complaints.raise_refused(began_s, self._region)
            raise world_error(failures[0], f"{self._region} {topic}")

    def _check(self, began_s: float, until_s: float, topic: str) -> None:
        self._complaints.raise_refused(began_s, self._region)
        if time.monotonic() > until_s:
            raise unreachable(self._region, f"append to {topic}", self._deadline_s)

    def _connect(self) -> Producer:
        return Producer(
            {
                **self._access.client_config(),
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 1,
                "retry.backoff.ms": 50,
                "message.timeout.ms": max(1000, int(self._deadline_s * 1000)),
                "compression.type": "lz4",
                "error_cb": self._complaints,
            },
            logger=DRIVER_LOG,
        )

    def _drop(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge()

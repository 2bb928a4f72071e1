"""Reading partitions from given positions, without a group. A position never jumps: outside of the log it is an error."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as Wire

from mrc.adapters.kafka.access import DRIVER_LOG, Access
from mrc.adapters.kafka.errors import Complaints, world_error
from mrc.core.errors import MrcError
from mrc.core.model import Offset, Seen, TopicPartition
from mrc.core.translation.fingerprint import fingerprint
from mrc.ports import Batch, Record, Sight

GROUP_ID = "mrc.reader"
"""The driver wants a name; nothing is ever committed under it."""

FETCH_ON_MS = 20
"""How long the driver waits when it holds as much as it may; by itself a second, in which whoever takes that sooner waits too."""

FOLLOWING: Mapping[str, int] = {"fetch.min.bytes": 65_536, "fetch.wait.max.ms": 50}
"""Settings of a consumer that follows logs: what comes within this time comes with one request, not with one for each record."""


def open_consumer(
    access: Access, start: Mapping[TopicPartition, Offset], complaints: Complaints, sight: Sight, settings: Mapping[str, int] = {}
) -> Consumer:
    """Return a consumer of these partitions that reports ends and refuses positions outside of the log."""
    consumer = Consumer(
        {
            **access.client_config(),
            "group.id": GROUP_ID,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            "isolation.level": sight.isolation,
            "auto.offset.reset": "error",
            "fetch.wait.max.ms": 20,
            "fetch.error.backoff.ms": 50,
            "queued.max.messages.kbytes": 16_384,
            "fetch.queue.backoff.ms": FETCH_ON_MS,
            "error_cb": complaints,
            **settings,
        },
        logger=DRIVER_LOG,
    )
    consumer.assign([Wire(tp.topic, tp.partition, offset) for tp, offset in start.items()])
    return consumer


def is_end(error: KafkaError | None) -> bool:
    """Whether a message only says that the readable end was reached; its offset then is that end, markers included."""
    return error is not None and error.code() == KafkaError._PARTITION_EOF


def seen(message: Message, offset: int, *, stamped: bool = True) -> Seen:
    """Return a record as the aligner needs it; without ``stamped`` its timestamp is no part of its fingerprint."""
    timestamp_ms = message.timestamp()[1]
    headers: Any = message.headers()  # The stub tells of the forms that one may send; what comes back is a list of pairs.
    return Seen(offset, timestamp_ms, fingerprint(timestamp_ms if stamped else None, message.key(), message.value(), headers))


def whole(message: Message) -> Record:
    """Return a record as people look at it."""
    headers: Any = message.headers()  # as in `seen`
    return Record(message.offset() or 0, message.timestamp()[1], message.key(), message.value(), tuple(headers or ()))


class KafkaReader:
    """The port `Reader` over one consumer.

    Args:
        access: the cluster and the principal.
        region: for errors.
        start: the first offset to see per partition.
        deadline_s: how long a cluster that stopped answering is asked before `poll` raises.
        sight: which records are visible, and whether their timestamps count.
    """

    def __init__(self, access: Access, region: str, start: Mapping[TopicPartition, Offset], deadline_s: float, sight: Sight) -> None:
        self._region = region
        self._deadline_s = deadline_s
        self._complaints = Complaints()
        self._names = {(tp.topic, tp.partition): tp for tp in start}
        self._positions: dict[TopicPartition, Offset] = dict(start)
        self._error: MrcError | None = None
        self._doubtful_since_s: float | None = None
        self._closed = False
        self._unstamped = sight.unstamped
        self._consumer = open_consumer(access, start, self._complaints, sight, FOLLOWING)

    def poll(self, max_records: int, timeout_s: float) -> list[Batch]:
        """See `Reader.poll`."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        began_s = time.monotonic()
        # The driver fills a batch or waits the whole time; so wait for one message and take what is there already.
        messages = self._consumer.consume(1, timeout_s)
        if messages and max_records > 1:
            messages += self._consumer.consume(max_records - 1, 0)
        if self._complaints.take_down() and self._doubtful_since_s is None:
            self._doubtful_since_s = began_s
        if not messages:
            self._require_cluster()
            return []
        records: dict[TopicPartition, list[Seen]] = {}
        ended: dict[TopicPartition, bool] = {}
        names, positions = self._names, self._positions
        for message in messages:
            problem = message.error()
            tp = names.get((message.topic() or "", message.partition() or 0))
            offset = message.offset()
            if problem is None and tp is not None and offset is not None:
                records.setdefault(tp, []).append(seen(message, offset, stamped=tp.topic not in self._unstamped))
                positions[tp] = Offset(offset + 1)
                ended[tp] = False
            elif is_end(problem) and tp is not None and offset is not None:
                positions[tp] = Offset(max(offset, positions[tp]))
                ended[tp] = True
            elif problem is not None and self._error is None:
                place = f"{self._region} {tp} at {positions[tp]}" if tp is not None else self._region
                self._error = world_error(problem, place)
        if not ended and self._error is not None:
            failed, self._error = self._error, None
            raise failed
        self._doubtful_since_s = None
        return [Batch(tp, tuple(records.get(tp, ())), positions[tp], end) for tp, end in ended.items()]

    def pause(self, tps: Iterable[TopicPartition]) -> None:
        """See `Reader.pause`."""
        self._consumer.pause([Wire(tp.topic, tp.partition) for tp in tps])

    def resume(self, tps: Iterable[TopicPartition]) -> None:
        """See `Reader.resume`."""
        self._consumer.resume([Wire(tp.topic, tp.partition) for tp in tps])

    def close(self) -> None:
        """See `Reader.close`."""
        if not self._closed:
            self._closed = True
            self._consumer.close()

    def _require_cluster(self) -> None:
        """After all brokers were lost, silence is not idleness: ask one of them before saying "nothing new"."""
        if self._doubtful_since_s is None:
            return
        tp = next(iter(self._positions), None)
        try:
            self._consumer.list_topics(tp.topic if tp is not None else None, timeout=self._deadline_s)
        except KafkaException as error:
            self._complaints.raise_refused(self._doubtful_since_s, self._region)
            raise world_error(error.args[0], self._region) from error
        self._doubtful_since_s = None

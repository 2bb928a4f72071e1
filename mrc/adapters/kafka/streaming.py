"""`StreamLog` on Kafka: a consumer group, a transactional producer, and the two in one transaction (KIP-98, KIP-447).

Where a partition is read on is the caller's word, not the group's committed offset: state and position come from the same changelog.
Offsets are committed all the same, for with them Kafka refuses a process whose partitions somebody else has by now.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, Producer
from confluent_kafka import TopicPartition as Wire

from mrc.adapters.kafka.access import DRIVER_LOG, Access
from mrc.adapters.kafka.cluster import KafkaCluster
from mrc.adapters.kafka.errors import Complaints, unreachable, world_error
from mrc.adapters.kafka.logs import arrived, committed
from mrc.adapters.kafka.reading import FETCH_ON_MS, is_end
from mrc.core.errors import InvariantViolation, MrcError
from mrc.core.model import GroupId, Offset, TopicPartition
from mrc.ports import Arrived, Outgoing, Shares

TRANSACTION_S = 30.0
"""How long a transaction may take; one that a dead process left open is aborted by Kafka after that."""

SESSION_MS = 10_000
"""How long a process may be silent before its partitions are given to others."""

WORK_MS_MAX = 1_800_000
"""How long a process may work, or restore its state, between two polls."""

SETTLE_TRY_S = 0.5
BATCH_RECORDS_MAX = 5_000
LEAVE_TRIES_MAX = 100
RECORD_BYTES_MAX = 16 << 20

_FENCED = frozenset(
    {
        KafkaError._FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.PRODUCER_FENCED,
        KafkaError.FENCED_INSTANCE_ID,
    }
)


class KafkaStreamLog:
    """One process of a group.

    Args:
        access: the cluster.
        region: for errors.
        group: the consumer group.
        name: the process's own in the group; one that starts under the same name takes the place of this one.
        topics: what is read.
        deadline_s: how long a cluster that does not answer is asked; transactions take up to `TRANSACTION_S`.
    """

    def __init__(self, access: Access, region: str, group: str, name: str, topics: Sequence[str], deadline_s: float) -> None:
        self._access = access
        self._region = region
        self._group = group
        self._deadline_s = deadline_s
        self._complaints = Complaints()
        self._cluster = KafkaCluster(region, access, None, deadline_s)
        self._given: list[Wire] | None = None
        self._revoked = False
        self._ended: set[TopicPartition] = set()
        self._more = False
        self._closed = False
        self._producer = self._open_producer(f"{group}.{name}")
        self._appender = Producer(self._producer_config(), logger=DRIVER_LOG)
        self._consumer = self._open_consumer(name, topics)
        self._consumer.subscribe(list(topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke)

    def poll(self, max_records: int, timeout_s: float, shares: Shares) -> list[Arrived]:
        """See `StreamLog.poll`."""
        messages = self._consume(1, timeout_s)
        if messages and max_records > 1 and not self._revoked and self._given is None:
            # The driver fills a batch or waits the whole time; so wait for one message and take what is there already.
            messages += self._consume(max_records - 1, 0)
        self._more = len(messages) >= max_records
        if self._revoked:
            # What was read belongs to somebody else now, or is read again from where its state stands.
            self._revoked = False
            messages = []
            shares.given_back()
        if self._given is not None:
            given, self._given = self._given, None
            self._take_share(given, shares)
            return []
        return [arrived(message, self._region) for message in messages if not self._says_end(message)]

    def at_end(self, tp: TopicPartition) -> bool:
        """See `StreamLog.at_end`."""
        return tp in self._ended and not self._more

    def ends(self, tps: Sequence[TopicPartition]) -> Mapping[TopicPartition, Offset]:
        """See `StreamLog.ends`."""
        return self._cluster.ends(tps, "read_uncommitted")

    def commit(self, records: Sequence[Outgoing], positions: Mapping[TopicPartition, Offset]) -> dict[TopicPartition, Offset]:
        """See `StreamLog.commit`."""
        last = {TopicPartition(one.topic, one.partition): number for number, one in enumerate(records)}
        watched = set(last.values())
        ends: dict[TopicPartition, Offset] = {}
        failures: list[KafkaError] = []

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                failures.append(error)
                return
            ends[TopicPartition(message.topic() or "", message.partition() or 0)] = Offset((message.offset() or 0) + 1)

        producer = self._producer
        try:
            producer.begin_transaction()
            until_s = time.monotonic() + TRANSACTION_S
            for number, one in enumerate(records):
                self._produce(producer, one, delivered if number in watched else None, until_s)
            wanted = [Wire(tp.topic, tp.partition, offset) for tp, offset in positions.items()]
            producer.send_offsets_to_transaction(wanted, self._consumer.consumer_group_metadata(), TRANSACTION_S)
            producer.flush(TRANSACTION_S)
            if failures:
                raise KafkaException(failures[0])  # noqa: TRY301 - ends as every other error of a transaction
            producer.commit_transaction(TRANSACTION_S)
        except KafkaException as error:
            raise self._given_up(error.args[0], "commit") from error
        if len(ends) != len(last):
            raise InvariantViolation("a transaction was committed whose records are not known to be written", where=self._region)
        return ends

    def append(self, records: Sequence[Outgoing]) -> None:
        """See `StreamLog.append`."""
        failures: list[KafkaError] = []

        def delivered(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                failures.append(error)

        until_s = time.monotonic() + self._deadline_s
        try:
            for one in records:
                self._produce(self._appender, one, delivered, until_s)
        except KafkaException as error:
            raise self._error(error.args[0], "append") from error
        if self._appender.flush(self._deadline_s):
            raise unreachable(self._region, "append", self._deadline_s)
        if failures:
            raise self._error(failures[0], "append")

    def replay(self, tp: TopicPartition, begin: Offset) -> Iterator[list[Arrived]]:
        """See `StreamLog.replay`."""
        start = begin or Offset(OFFSET_BEGINNING)
        for messages in committed(self._access, self._region, {tp: start}, self._deadline_s):
            yield [arrived(message, self._region) for message in messages]

    def identity(self, topic: str) -> str:
        """See `StreamLog.identity`: Kafka's topic id."""
        found = self._cluster.topics([topic])
        if topic not in found:
            raise MrcError("UNKNOWN_TOPIC", f"there is no {topic}", where=self._region, retryable=True)
        return found[topic].topic_id

    def close(self) -> None:
        """See `StreamLog.close`. An open transaction is aborted by whoever takes this name next, or by Kafka."""
        if not self._closed:
            self._closed = True
            self._leave()
            self._consumer.close()
            for producer in (self._producer, self._appender):
                producer.purge()
            self._cluster.close()

    def _leave(self) -> None:
        """Take no share any more. One that is on its way must not come while the consumer closes: the driver (2.16) then waits for ever."""
        try:
            self._consumer.unsubscribe()
            for _ in range(LEAVE_TRIES_MAX):
                if not self._consumer.consume(BATCH_RECORDS_MAX, 0):
                    return
        except KafkaException as error:
            DRIVER_LOG.debug("%s: leaves in disorder: %s", self._region, error)

    # ---------------------------------------------------------------- reading

    def _on_assign(self, consumer: Consumer, partitions: list[Wire]) -> None:
        # Nothing is fetched before the state says from where.
        self._given = partitions
        consumer.assign([])

    def _on_revoke(self, consumer: Consumer, partitions: list[Wire]) -> None:
        self._revoked = True
        self._given = None

    def _consume(self, count: int, timeout_s: float) -> list[Message]:
        try:
            return self._consumer.consume(count, timeout_s)
        except KafkaException as error:
            raise self._error(error.args[0], "read") from error

    def _take_share(self, given: Sequence[Wire], shares: Shares) -> None:
        self._require_settled()
        self._ended.clear()
        positions = shares.taken(frozenset(TopicPartition(one.topic, one.partition) for one in given))
        self._consumer.assign([Wire(tp.topic, tp.partition, offset or OFFSET_BEGINNING) for tp, offset in positions.items()])

    def _says_end(self, message: Message) -> bool:
        """Note whether its partition has come to its end; return whether that is all that a message says."""
        ended = is_end(message.error())
        if ended or self._ended:
            tp = TopicPartition(message.topic() or "", message.partition() or 0)
            (self._ended.add if ended else self._ended.discard)(tp)
        return ended

    def _require_settled(self) -> None:
        """Wait until no offset of the group is under way in a transaction: then all that others have committed can be read."""
        until_s = time.monotonic() + TRANSACTION_S + 2 * SESSION_MS / 1000
        while True:
            try:
                self._cluster.positions(GroupId(self._group))
                return
            except MrcError as error:
                if not error.retryable or time.monotonic() > until_s:
                    raise
                time.sleep(SETTLE_TRY_S)

    # ---------------------------------------------------------------- writing

    def _produce(
        self, producer: Producer, one: Outgoing, delivered: Callable[[KafkaError | None, Message], None] | None, until_s: float
    ) -> None:
        more: dict[str, Any] = {}  # the driver takes longer over an argument that says nothing
        if one.headers:
            more["headers"] = one.headers if isinstance(one.headers, list) else list(one.headers)
        if delivered is not None:
            more["on_delivery"] = delivered
        while True:
            try:
                producer.produce(one.topic, one.value, one.key, one.partition, **more)
                return
            except BufferError:
                producer.poll(0.05)
                if time.monotonic() > until_s:
                    raise unreachable(self._region, f"write to {one.topic}", TRANSACTION_S) from None

    def _given_up(self, error: KafkaError, what: str) -> MrcError:
        """Abort what is open, so that nobody has to wait for it, and return mrc's error."""
        if not error.fatal():
            try:
                self._producer.abort_transaction(self._deadline_s)
            except KafkaException:
                DRIVER_LOG.debug("%s: a transaction is left to be aborted by Kafka", self._region)
        return self._error(error, what)

    def _error(self, error: KafkaError, what: str) -> MrcError:
        if error.code() in _FENCED:
            return MrcError("RESOLVER_FENCED", f"{what}: {error.str()}", where=f"{self._region} {self._group}")
        return world_error(error, f"{self._region} {what}")

    def _producer_config(self) -> dict[str, Any]:
        return {
            **self._access.client_config(),
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 5,
            "batch.size": 1 << 20,
            "message.max.bytes": RECORD_BYTES_MAX,
            "queue.buffering.max.messages": 500_000,
            "compression.type": "lz4",
            "retry.backoff.ms": 50,
            "message.timeout.ms": int(self._deadline_s * 1000),
            "error_cb": self._complaints,
        }

    def _open_producer(self, id: str) -> Producer:
        began_s = time.monotonic()
        timeout_ms = int(TRANSACTION_S * 1000)
        mine = {"transactional.id": id, "transaction.timeout.ms": timeout_ms, "message.timeout.ms": timeout_ms}
        producer = Producer({**self._producer_config(), **mine}, logger=DRIVER_LOG)
        try:
            producer.init_transactions(TRANSACTION_S)
        except KafkaException as error:
            producer.poll(0)
            self._complaints.raise_refused(began_s, self._region)
            raise self._error(error.args[0], "begin") from error
        return producer

    def _open_consumer(self, name: str, topics: Sequence[str]) -> Consumer:
        # A broker that knows a static member of this id gives it what it had, whatever topics it asks for now (KIP-345).
        asked = hashlib.sha256("\0".join(topics).encode()).hexdigest()[:8]
        return Consumer(
            {
                **self._access.client_config(),
                "group.id": self._group,
                "group.instance.id": f"{self._group}.{name}.{asked}",
                "partition.assignment.strategy": "range",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
                "session.timeout.ms": SESSION_MS,
                "heartbeat.interval.ms": SESSION_MS // 5,
                "max.poll.interval.ms": WORK_MS_MAX,
                "fetch.wait.max.ms": 50,
                "fetch.error.backoff.ms": 50,
                # How soon new partitions are noticed; they are refused.
                "topic.metadata.refresh.interval.ms": 30_000,
                "queued.max.messages.kbytes": 65_536,
                "fetch.queue.backoff.ms": FETCH_ON_MS,
                "error_cb": self._complaints,
            },
            logger=DRIVER_LOG,
        )

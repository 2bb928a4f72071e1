"""Writing in transactions through librdkafka: the `Emitter` port. Kafka keeps whoever was before from writing on (KIP-98, KIP-588)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from mrc.adapters.kafka.access import DRIVER_LOG, Access
from mrc.adapters.kafka.errors import Complaints, unreachable, world_error
from mrc.core.errors import MrcError
from mrc.ports import Emitted

TRANSACTION_TIMEOUT_MS: Final = 10_000
"""After which the broker ends the transaction of an agent that died, so that readers of committed records go on."""

_OPEN_DEADLINES: Final = 5
"""Opening may take so many deadlines: the broker first ends the predecessor's transaction."""

_FENCED: Final = frozenset(
    {KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_ID_MAPPING}
)


class KafkaEmitter:
    """One transactional producer. Nothing of it outlives an error."""

    def __init__(self, access: Access, region: str, name: str, deadline_s: float) -> None:
        self._region = region
        self._name = name
        self._deadline_s = deadline_s
        self._complaints = Complaints()
        self._open = False
        self._failures: list[KafkaError] = []
        self._producer: Producer | None = Producer(
            {
                **access.client_config(),
                "transactional.id": name,
                "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
                "linger.ms": 5,
                "retry.backoff.ms": 50,
                "compression.type": "lz4",
                "error_cb": self._complaints,
            },
            logger=DRIVER_LOG,
        )
        try:
            self._tell("open", lambda one, left_s: one.init_transactions(left_s), deadline_s * _OPEN_DEADLINES)
        except BaseException:
            self.close()
            raise

    def send(self, records: Sequence[Emitted]) -> None:
        """See `Emitter.send`; returns when every in-sync replica has them."""
        producer = self._living()
        if not self._open:
            self._tell("begin", lambda one, _left_s: one.begin_transaction(), self._deadline_s)
            self._open = True
        began_s = time.monotonic()
        for record in records:
            while True:
                try:
                    producer.produce(
                        record.tp.topic,
                        key=record.key,
                        value=record.value,
                        partition=record.tp.partition,
                        timestamp=record.timestamp_ms,
                        headers=list(record.headers),
                        on_delivery=self._delivered,
                    )
                    break
                except BufferError:
                    producer.poll(0.02)
                    self._check(began_s)
                except KafkaException as error:
                    raise self._error(error.args[0], "write") from error
        while len(producer) and not self._failures:
            producer.flush(0.05)
            if len(producer):
                self._check(began_s)
        if self._failures:
            raise self._error(self._failures[0], "write")

    def commit(self) -> None:
        """See `Emitter.commit`."""
        if self._open:
            self._tell("commit", lambda one, left_s: one.commit_transaction(left_s), self._deadline_s)
            self._open = False

    def close(self) -> None:
        """See `Emitter.close`. A transaction that is open is broken off where the cluster answers at once."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        producer.purge()
        if self._open:
            with contextlib.suppress(KafkaException):
                producer.abort_transaction(min(1.0, self._deadline_s))

    def _delivered(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self._failures.append(error)

    def _tell(self, what: str, call: Callable[[Producer, float], None], deadline_s: float) -> None:
        """Make a call of the transaction's, again while the driver says that this may help, until the deadline."""
        producer, began_s = self._living(), time.monotonic()
        while True:
            left_s = deadline_s - (time.monotonic() - began_s)
            try:
                call(producer, max(0.1, left_s))
                return
            except KafkaException as error:
                with contextlib.suppress(KafkaException):  # of a producer that is done for: its error is in hand already
                    producer.poll(0)
                self._complaints.raise_refused(began_s, self._region)
                failure: KafkaError = error.args[0]
                if not failure.retriable():
                    raise self._error(failure, what) from error
                if time.monotonic() - began_s >= deadline_s:
                    raise unreachable(self._region, f"{what} transaction {self._name}", deadline_s) from error

    def _check(self, began_s: float) -> None:
        self._complaints.raise_refused(began_s, self._region)
        if time.monotonic() - began_s > self._deadline_s:
            raise unreachable(self._region, f"write as {self._name}", self._deadline_s)

    def _error(self, failure: KafkaError, what: str) -> MrcError:
        if failure.code() in _FENCED:
            return MrcError("STALE_TERM", f"somebody else writes as {self._name} now", where=self._region)
        return world_error(failure, f"{self._region} {what} as {self._name}")

    def _living(self) -> Producer:
        if self._producer is None:
            raise MrcError("INVARIANT", "a closed emitter was used")
        return self._producer

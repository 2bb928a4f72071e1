"""A producer that writes only where and while the active-region record says ``open``.

Owns one confluent_kafka Producer per place, never carries one to another. Refuses to send elsewhere or otherwise; what
was sent without an acknowledgement comes back to the application, in the order of sending, which may send it again.
Invariant: every event that was taken is acknowledged once or comes back once, never both.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from mrc.client.place import Follows, Place
from mrc.core.model import Region, Value

T = TypeVar("T")

_log = logging.getLogger(__name__)

_SHUT = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED).name()
"""The broker refuses a topic: the region is fenced still, or again."""

_ASK_S = 0.1
"""How long a producer that was refused waits for its topics' metadata before it tries again."""

_REFUSALS = frozenset(
    {KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError._FENCED}
)

_DEFAULTS: Mapping[str, Any] = {
    "acks": "all",
    "enable.idempotence": True,
    "linger.ms": 5,
    "message.timeout.ms": 120_000,
    # A broker that hangs is left after 5 s, not 60; a broker that comes up is found within half a second.
    "request.timeout.ms": 5_000,
    "socket.connection.setup.timeout.ms": 3_000,
    "reconnect.backoff.ms": 20,
    "reconnect.backoff.max.ms": 500,
    "retry.backoff.ms": 50,
    "topic.metadata.refresh.fast.interval.ms": 50,
    "allow.auto.create.topics": False,
}


class Acknowledged(Value, Generic[T], frozen=True):
    """All in-sync replicas have the event. ``token`` is the application's own."""

    token: T
    place: Place
    topic: str
    partition: int
    offset: int


class Unacknowledged(Value, Generic[T], frozen=True):
    """The event was sent and no acknowledgement came: it may or may not be in the log of ``place``.

    Attributes:
        token: the application's own.
        place: where it was sent.
        reason: librdkafka's name of the error.
    """

    token: T
    place: Place
    reason: str


class _Instance(Generic[T]):
    """One confluent_kafka Producer at one place, with what it has not answered yet."""

    def __init__(self, place: Place, config: Mapping[str, Any], acknowledged: Callable[[Acknowledged[T]], None]) -> None:
        self.place = place
        self.pending: dict[int, T] = {}
        self.failed: dict[int, Unacknowledged[T]] = {}
        self.broken = ""
        self.refused = False
        self.rests = False
        self._topics: set[str] = set()
        self._acknowledged = acknowledged
        self._sent = 0
        self.producer: Producer = Producer({**_DEFAULTS, **config, "error_cb": self._error})

    def send(self, topic: str, key: bytes, value: bytes, token: T) -> bool:
        number = self._sent
        self._topics.add(topic)
        try:
            self.producer.produce(topic, value, key, on_delivery=lambda error, message: self._answered(number, error, message))
        except BufferError:
            return False
        except KafkaException as error:
            self.broken = error.args[0].name()
            return False
        self._sent = number + 1
        self.pending[number] = token
        return True

    def poll(self, timeout_s: float) -> None:
        """Serve answers. A fatal error, which confluent_kafka raises here as well, ends the instance and not the application."""
        try:
            self.producer.poll(timeout_s)
        except KafkaException as error:
            self._error(error.args[0])

    def _error(self, error: KafkaError) -> None:
        _log.debug("producer in %s: %s", self.place.region, error)
        if error.fatal():
            self.broken = error.name()
        self.refused = self.refused or error.code() in _REFUSALS

    def _answered(self, number: int, error: KafkaError | None, message: Message) -> None:
        if number not in self.pending:
            return  # it was given back already: a late answer must not count twice
        token = self.pending.pop(number)
        if error is None:
            topic, partition, offset = message.topic(), message.partition(), message.offset()
            self._acknowledged(Acknowledged(token, self.place, str(topic), int(partition or 0), int(offset or 0)))
            return
        self.failed[number] = Unacknowledged(token, self.place, error.name())
        self.refused = self.refused or error.code() in _REFUSALS
        # A purge too: the one of an earlier rest may reach a broker's thread that hung only when new events wait there.
        self.broken = self.broken or error.name()

    def retire(self, flush_bound_s: float) -> list[Unacknowledged[T]]:
        """Wait for answers until the bound, give up the rest, return what was not acknowledged in the order of sending."""
        deadline = time.monotonic() + (0.0 if self.refused else flush_bound_s)
        while self.pending and not self.refused and (left_s := deadline - time.monotonic()) > 0:
            self.poll(min(left_s, 0.01))
        if self.pending:
            self.producer.purge(in_queue=True, in_flight=True, blocking=False)
            deadline = time.monotonic() + 0.1
            while self.pending and (left_s := deadline - time.monotonic()) > 0:
                self.poll(min(left_s, 0.01))
        unanswered = {number: Unacknowledged(token, self.place, "_NO_ANSWER") for number, token in self.pending.items()}
        self.pending.clear()
        failed = {**self.failed, **unanswered}
        self.failed.clear()
        return [failed[number] for number in sorted(failed)]

    def go_on(self) -> None:
        """Send again after a refusal, once all has come back. A new producer would wait half a second for its id first."""
        self.broken, self.refused, self.rests = "", False, False
        until_s = time.monotonic() + _ASK_S
        for topic in self._topics:
            # librdkafka keeps a topic's refusal until it has asked for its metadata.
            try:
                self.producer.list_topics(topic, timeout=max(0.01, until_s - time.monotonic()))
            except KafkaException as error:
                _log.debug("producer in %s: %s", self.place.region, error)


class FollowingProducer(Generic[T]):
    """Sends events to the active region. One thread only, which calls `tend` at least every 50 ms.

    Any failed delivery ends the instance: what it had not answered comes back, and a new one starts after a short
    pause, so no later event of a key overtakes a failed one unnoticed. One that was only refused goes on after the pause, when all has come
    back: brokers lift a fence a moment after the record says ``open``. While the record names the region to open next, a producer there
    is made ready: an idempotent one needs half a second before its first record.
    """

    def __init__(
        self,
        active: Follows,
        configs: Mapping[Region, Mapping[str, Any]],
        acknowledged: Callable[[Acknowledged[T]], None],
        *,
        flush_bound_s: float = 0.2,
        retry_pause_s: float = 0.1,
    ) -> None:
        """Make a producer that follows; it connects with the first `tend`.

        Args:
            active: who knows the active region.
            configs: librdkafka settings per region; they win over this class's own.
            acknowledged: called from `tend` for every acknowledged event.
            flush_bound_s: how long a place that closes may still answer.
            retry_pause_s: the pause after a failed delivery, before a new instance starts at the same place.
        """
        self._active = active
        self._configs = configs
        self._acknowledged = acknowledged
        self._flush_bound_s = flush_bound_s
        self._retry_pause_s = retry_pause_s
        self._instance: _Instance[T] | None = None
        self._ready: _Instance[T] | None = None
        self._not_before_s = 0.0
        self._unacknowledged: list[Unacknowledged[T]] = []
        self._releases: list[threading.Thread] = []

    @property
    def place(self) -> Place | None:
        """Where events are sent now; None while nowhere."""
        return self._instance.place if self._instance and not self._instance.rests else None

    @property
    def pending(self) -> int:
        """Events that were sent and not answered yet."""
        return len(self._instance.pending) if self._instance else 0

    def send(self, topic: str, key: bytes, value: bytes, token: T) -> bool:
        """Take one event, at once; False when it was not taken, because no region is open or the queue is full."""
        if self._instance is None or self._instance.broken or self._active.now().open_place != self._instance.place:
            return False
        return self._instance.send(topic, key, value, token)

    def tend(self, timeout_s: float = 0.0) -> None:
        """Serve answers for up to ``timeout_s`` and follow the record; ends within ``timeout_s + flush_bound_s + 0.2`` seconds."""
        if self._instance is not None:
            self._instance.poll(timeout_s)
        elif timeout_s > 0:
            time.sleep(timeout_s)
        if self._ready is not None:
            self._ready.poll(0)
        self._follow()

    def take_unacknowledged(self) -> list[Unacknowledged[T]]:
        """Return, once, what came back since the last call, in the order of sending."""
        taken, self._unacknowledged = self._unacknowledged, []
        return taken

    def close(self, flush_bound_s: float = 5.0) -> None:
        """Wait for answers until the bound and end; the rest is with `take_unacknowledged`."""
        self._retire(flush_bound_s)
        self._drop_ready()
        for thread in self._releases:
            thread.join(1.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _follow(self) -> None:
        sighting = self._active.now()
        wanted = sighting.open_place
        if self._instance is not None and self._instance.broken:
            self._pause(self._instance, wanted)
        if self._instance is not None and wanted != self._instance.place:
            self._retire(self._flush_bound_s)
        if self._instance is None and wanted is not None and wanted.region in self._configs and time.monotonic() >= self._not_before_s:
            self._instance = self._start(wanted)
        elif (coming := sighting.coming) is not None and coming.region in self._configs:
            self._prepare(coming)

    def _pause(self, broken: _Instance[T], wanted: Place | None) -> None:
        shut = broken.broken == _SHUT and broken.place == wanted
        if broken.rests and shut:
            if time.monotonic() >= self._not_before_s:
                broken.go_on()
            return
        _log.info("producer in %s pauses after %s", broken.place.region, broken.broken)
        self._not_before_s = time.monotonic() + self._retry_pause_s
        if shut:
            self._unacknowledged += broken.retire(0.0)
            broken.rests = True
        else:
            self._retire(0.0)

    def _prepare(self, coming: Place) -> None:
        # A region that is still fenced may refuse an idempotent producer's id for good; once the fence is gone a new one gets it.
        if self._ready is not None and self._ready.broken:
            self._not_before_s = time.monotonic() + self._retry_pause_s
            self._drop_ready()
        if self._ready is None and time.monotonic() >= self._not_before_s:
            self._ready = self._make(coming)

    def _start(self, place: Place) -> _Instance[T]:
        ready, self._ready = self._ready, None
        if ready is not None and ready.place.region == place.region and not ready.broken and not ready.refused:
            ready.place = place
            return ready
        if ready is not None:
            self._release(ready)
        return self._make(place)

    def _make(self, place: Place) -> _Instance[T]:
        return _Instance(place, self._configs[place.region], self._acknowledged)

    def _retire(self, flush_bound_s: float) -> None:
        if self._instance is None:
            return
        instance, self._instance = self._instance, None
        self._unacknowledged += instance.retire(flush_bound_s)
        self._release(instance)

    def _drop_ready(self) -> None:
        if self._ready is not None:
            self._release(self._ready)
            self._ready = None

    def _release(self, instance: _Instance[T]) -> None:
        # Freeing a producer waits for librdkafka's threads, which may take seconds with a dead cluster.
        thread = threading.Thread(target=instance.producer.close, name="producer-release", daemon=True)
        thread.start()
        self._releases = [each for each in self._releases if each.is_alive()] + [thread]

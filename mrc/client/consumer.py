"""A consumer group's member that reads only where and while the active-region record says ``open``.

Owns one confluent_kafka Consumer per place. Refuses to commit what the application did not mark as processed, and what was not given
to it by this very member at this very place: an offset of one cluster means nothing in another, and would skip records there.
Invariant: when a place closes, the last positions are committed synchronously and the member leaves its group, within a bound.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from mrc.client.place import Follows, Place
from mrc.core.model import Region, Value

_log = logging.getLogger(__name__)

_ENDS = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError._MAX_POLL_EXCEEDED,
        KafkaError._FATAL,
    }
)

_DEFAULTS: Mapping[str, Any] = {
    "auto.offset.reset": "earliest",
    "isolation.level": "read_committed",
    "group.protocol": "classic",
    "session.timeout.ms": 6_000,
    "heartbeat.interval.ms": 1_000,
    "fetch.wait.max.ms": 100,
    "fetch.queue.backoff.ms": 50,
    "fetch.error.backoff.ms": 50,
    # Every request to a broker that hangs ends after 3 s, not 60; a broker that comes up is found within half a second.
    "socket.timeout.ms": 3_000,
    "socket.connection.setup.timeout.ms": 3_000,
    "reconnect.backoff.ms": 20,
    "reconnect.backoff.max.ms": 500,
    "retry.backoff.ms": 50,
    "topic.metadata.refresh.fast.interval.ms": 50,
    "allow.auto.create.topics": False,
}


class Closed(Value, frozen=True):
    """How a place was left.

    Attributes:
        place: which.
        committed: whether the final commit succeeded, or nothing was left to commit.
        took_s: seconds from the decision to leave until the member had left, or the bound had passed.
        trouble: why the final commit failed, or that the bound passed; empty where all went well.
    """

    place: Place
    committed: bool
    took_s: float
    trouble: str = ""


class _Session:
    """One confluent_kafka Consumer at one place, and the positions up to which its messages are processed."""

    def __init__(self, place: Place, config: Mapping[str, Any], group: str, topics: Sequence[str]) -> None:
        self.place = place
        self.broken = ""
        self.processed: dict[tuple[str, int], int] = {}
        self._given: dict[tuple[str, int], dict[int, Message]] = {}  # of each partition that is its own: what is not marked yet
        self._sent: dict[tuple[str, int], int] = {}
        self.consumer = Consumer(
            {
                **_DEFAULTS,
                **config,
                "group.id": group,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "error_cb": self.note,
                "on_commit": self._committed,
            }
        )
        self.consumer.subscribe(list(topics), on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost)

    def note(self, error: KafkaError) -> None:
        _log.debug("consumer in %s: %s", self.place.region, error)
        if error.fatal() or error.code() in _ENDS:
            self.broken = error.name()

    def _committed(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        for each in partitions:
            if (trouble := error or each.error) is not None:
                _log.info("commit of %s-%s in %s failed: %s", each.topic, each.partition, self.place.region, trouble.name())
                self._sent.clear()  # the next commit repeats it

    def _assigned(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        for each in partitions:
            self._given[(each.topic, each.partition)] = {}

    def give(self, messages: list[Message]) -> list[Message]:
        """Return those that may be handed on: of partitions that are still this member's, for the others go to another one."""
        found = []
        for message in messages:
            if message.error() is None and (given := self._given.get(_partition(message))) is not None:
                given[int(message.offset() or 0)] = message
                found.append(message)
        return found

    def mark(self, message: Message) -> bool:
        """Take ``message``, and all before it in its partition, for processed; False where this member has not given it, or gave it up."""
        tp, offset = _partition(message), int(message.offset() or 0)
        given = self._given.get(tp)
        if given is None or given.get(offset) is not message:
            return False
        while (first := next(iter(given))) != offset:  # they stand in the order of offsets
            del given[first]
        del given[offset]
        self.processed[tp] = offset + 1
        return True

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        mine = {(each.topic, each.partition) for each in partitions}
        for tp in mine:
            self._given.pop(tp, None)
        leaving = {tp: offset for tp, offset in self.processed.items() if tp in mine}
        for tp in leaving:
            del self.processed[tp]
        if leaving:
            try:
                consumer.commit(offsets=_offsets(leaving), asynchronous=False)
            except KafkaException as error:
                _log.info("commit on revocation in %s failed: %s", self.place.region, error)

    def _lost(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        for each in partitions:
            self._given.pop((each.topic, each.partition), None)
            self.processed.pop((each.topic, each.partition), None)

    def commit_soon(self) -> None:
        """Commit what is processed, where it has grown, without waiting for the answer."""
        if self.processed == self._sent:
            return
        try:
            self.consumer.commit(offsets=_offsets(self.processed), asynchronous=True)
        except KafkaException as error:
            _log.info("commit in %s failed: %s", self.place.region, error)
        else:
            self._sent = dict(self.processed)

    def leave(self) -> str:
        """Commit synchronously and leave the group; returns the trouble with the commit, or an empty string."""
        trouble = ""
        try:
            if self.processed:
                for each in self.consumer.commit(offsets=_offsets(self.processed), asynchronous=False) or ():
                    trouble = trouble or (each.error.name() if each.error else "")
        except KafkaException as error:
            trouble = error.args[0].name()
        self.processed.clear()  # so that the revocation in close() does not commit again
        self.consumer.close()
        return trouble


class FollowingConsumer:
    """Reads the active region as a member of one group. One thread only, which calls `poll` or `tend` at least every 50 ms.

    The application marks what it has processed with `mark`; only that is committed: every ``commit_every_s`` seconds and,
    synchronously, when the place closes. Messages not marked by then come again at the next opening; they must be dropped.
    """

    def __init__(
        self,
        active: Follows,
        configs: Mapping[Region, Mapping[str, Any]],
        group: str,
        topics: Sequence[str] | Mapping[Region, Sequence[str]],
        *,
        commit_every_s: float = 0.5,
        leave_bound_s: float = 1.0,
        retry_pause_s: float = 0.2,
        closed: Callable[[Closed], None] = lambda _: None,
    ) -> None:
        """Make a consumer that follows; it joins with the first `poll`.

        Args:
            active: who knows the active region.
            configs: librdkafka settings per region; they win over this class's own.
            group: the consumer group's id.
            topics: what to subscribe to; per region where MirrorMaker's copies have names of their own (its default policy).
            commit_every_s: seconds between commits while the place is open.
            leave_bound_s: how long the final commit and the leaving may take; afterwards they go on unattended.
            retry_pause_s: the pause after a refusal, before a new member joins at the same place.
            closed: called after each leaving.
        """
        self._active = active
        self._configs = configs
        self._group = group
        self._topics = topics
        self._commit_every_s = commit_every_s
        self._leave_bound_s = leave_bound_s
        self._retry_pause_s = retry_pause_s
        self._closed = closed
        self._session: _Session | None = None
        self._not_before_s = 0.0
        self._committed_at_s = 0.0

    @property
    def place(self) -> Place | None:
        """Where this member reads now; None while nowhere. It changes in `poll` and `tend` only."""
        return self._session.place if self._session else None

    def poll(self, max_records: int, timeout_s: float) -> list[Message]:
        """Follow the record and return up to ``max_records`` messages of `place`; empty after ``timeout_s`` without any."""
        if not self.tend():
            self._join()
        if self._session is None:
            time.sleep(min(timeout_s, 0.02))
            return []
        try:
            messages = self._session.consumer.consume(max_records, timeout_s)
        except KafkaException as error:
            self._session.broken = error.args[0].name()
            return []
        for message in messages:
            if (trouble := message.error()) is not None:
                self._session.note(trouble)
        return self._session.give(messages)

    def mark(self, message: Message) -> bool:
        """Say that ``message`` is processed, and all before it in its partition.

        False: it was polled at a place, or of a partition, that is not this member's any more. Nothing is committed for it, and it comes
        again, here or at another member.
        """
        return self._session is not None and self._session.mark(message)

    def tend(self) -> bool:
        """Follow the record and commit when due; False when there is no place: what was polled and not marked must be dropped."""
        if self._session is None:
            return False
        if self._session.broken:
            _log.info("consumer %s in %s starts anew after %s", self._group, self._session.place.region, self._session.broken)
            self._not_before_s = time.monotonic() + self._retry_pause_s
            self._leave()
            return False
        if self._active.now().open_place != self._session.place:
            self._leave()
            return False
        if time.monotonic() - self._committed_at_s >= self._commit_every_s:
            self._session.commit_soon()
            self._committed_at_s = time.monotonic()
        return True

    def close(self) -> None:
        """Commit synchronously, leave the group and end, within the bound."""
        self._leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _join(self) -> None:
        wanted = self._active.now().open_place
        if wanted is None or wanted.region not in self._configs or time.monotonic() < self._not_before_s:
            return
        topics = self._topics[wanted.region] if isinstance(self._topics, Mapping) else self._topics
        self._session = _Session(wanted, self._configs[wanted.region], self._group, topics)
        self._committed_at_s = time.monotonic()

    def _leave(self) -> None:
        if self._session is None:
            return
        session, self._session = self._session, None
        started_s = time.monotonic()
        troubles: list[str] = []
        thread = threading.Thread(target=lambda: troubles.append(session.leave()), name=f"leave-{self._group}", daemon=True)
        thread.start()
        thread.join(self._leave_bound_s)
        trouble = troubles[0] if troubles else f"no answer within {self._leave_bound_s} s"
        self._closed(Closed(session.place, committed=not trouble, took_s=time.monotonic() - started_s, trouble=trouble))


def _partition(message: Message) -> tuple[str, int]:
    return str(message.topic()), int(message.partition() or 0)


def _offsets(positions: Mapping[tuple[str, int], int]) -> list[TopicPartition]:
    return [TopicPartition(topic, partition, offset) for (topic, partition), offset in positions.items()]

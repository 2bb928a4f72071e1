"""Asking partition leaders whether a principal could write, without writing.

The question is a record dated ten years ahead. A leader authorises before it looks at timestamps, so ``INVALID_TIMESTAMP`` means that the
principal may write and ``TOPIC_AUTHORIZATION_FAILED`` that it may not; either way nothing is appended.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from mrc.adapters.kafka.access import DRIVER_LOG, Access
from mrc.adapters.kafka.errors import Complaints, unreachable, world_error
from mrc.core.errors import MrcError
from mrc.core.model import TopicPartition
from mrc.ports import ProbeAnswer, TopicInfo

_AHEAD_MS: Final = 10 * 365 * 86_400_000
_DAY_MS: Final = 86_400_000

_NO_ANSWER = frozenset(
    {
        KafkaError._MSG_TIMED_OUT,
        KafkaError._TIMED_OUT,
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._PURGE_QUEUE,
        KafkaError._PURGE_INFLIGHT,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.NETWORK_EXCEPTION,
    }
)
"""Errors that come from elsewhere than a leader's authorizer."""


def would_refuse_the_date(topic: TopicInfo) -> bool:
    """Whether this topic turns a record dated ten years ahead away, whoever sends it.

    False as well where the settings do not say: brokers before 3.6 have no ``message.timestamp.after.max.ms``.
    """
    bound_ms = topic.config.get("message.timestamp.after.max.ms", "")
    return topic.config.get("message.timestamp.type") == "CreateTime" and bound_ms.isdigit() and int(bound_ms) < _AHEAD_MS - _DAY_MS


class Probe:
    """The probe principal's way in. Every `ask` makes fresh clients, because librdkafka remembers refusals."""

    def __init__(self, access: Access, region: str, deadline_s: float) -> None:
        self._access = access
        self._region = region
        self._deadline_s = deadline_s

    def ask(self, tps: Sequence[TopicPartition], topics: Mapping[str, TopicInfo]) -> dict[TopicPartition, ProbeAnswer]:
        """Return every partition's answer.

        ``unverifiable`` also where the principal may not describe the topic: then the refusal is any broker's, not the leader's.

        Raises:
            MrcError: a leader did not answer in time, or the probe's credentials were refused.
        """
        answers: dict[TopicPartition, ProbeAnswer] = dict.fromkeys(tps, "unverifiable")
        by_leader: defaultdict[int, list[TopicPartition]] = defaultdict(list)
        for tp in tps:
            if would_refuse_the_date(topics[tp.topic]):
                by_leader[topics[tp.topic].leaders[tp.partition]].append(tp)
        # One client per leader: a refusal by one broker must not be the client's own answer for another.
        questions = [_Question(self._access, self._region, group, self._deadline_s) for group in by_leader.values()]
        for question in questions:
            question.send()
        for question in questions:
            answers |= question.answers()
        return answers


class _Question:
    """One fresh producer and its records to one leader."""

    def __init__(self, access: Access, region: str, tps: list[TopicPartition], deadline_s: float) -> None:
        self._region = region
        self._tps = tps
        self._deadline_s = deadline_s
        self._until_s = time.monotonic() + deadline_s
        self._began_s = time.monotonic()
        self._complaints = Complaints()
        self._answers: dict[TopicPartition, KafkaError | None] = {}
        self._sent: list[TopicPartition] = []
        self._producer = Producer(
            {
                **access.client_config(),
                "enable.idempotence": False,
                "acks": "all",
                "linger.ms": 0,
                "retries": 3,
                "retry.backoff.ms": 20,
                "message.timeout.ms": max(1, int(deadline_s * 1000)),
                "error_cb": self._complaints,
            },
            logger=DRIVER_LOG,
        )

    def send(self) -> None:
        """Send a record to each partition whose topic the principal may describe."""
        describable = {topic for topic in sorted({tp.topic for tp in self._tps}) if self._describable(topic)}
        self._sent = [tp for tp in self._tps if tp.topic in describable]
        timestamp_ms = int(time.time() * 1000) + _AHEAD_MS
        for tp in self._sent:
            try:
                self._producer.produce(
                    tp.topic, key=b"mrc-probe", value=b"", partition=tp.partition, timestamp=timestamp_ms, on_delivery=self._take(tp)
                )
            except KafkaException as failure:
                # This leader has just refused another partition of the topic, and the driver answers for it at once.
                self._answers[tp] = failure.args[0]

    def answers(self) -> dict[TopicPartition, ProbeAnswer]:
        """Wait for the leader and return its answers."""
        while len(self._answers) < len(self._sent):
            self._producer.poll(0.02)
            self._complaints.raise_refused(self._began_s, self._region)
            if time.monotonic() > self._until_s:
                self._producer.purge()
                raise unreachable(self._region, "probe", self._deadline_s)
        return {tp: self._meaning(tp, error) for tp, error in self._answers.items()}

    def _take(self, tp: TopicPartition) -> Callable[[KafkaError | None, Message], None]:
        def delivered(error: KafkaError | None, _message: Message) -> None:
            self._answers[tp] = error

        return delivered

    def _describable(self, topic: str) -> bool:
        """Whether the principal sees the topic. Bounded by the deadline; refused credentials end it early."""
        while True:
            try:
                error = self._producer.list_topics(topic, timeout=0.5).topics[topic].error
            except KafkaException as failure:
                self._producer.poll(0)
                self._complaints.raise_refused(self._began_s, self._region)
                if time.monotonic() > self._until_s:
                    raise unreachable(self._region, "probe", self._deadline_s) from failure
                continue
            if error is None:
                return True
            if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                return False
            raise world_error(error, f"{self._region} {topic}")

    def _meaning(self, tp: TopicPartition, error: KafkaError | None) -> ProbeAnswer:
        if error is not None and error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            return "refused"
        if error is not None and error.code() in _NO_ANSWER:
            raise MrcError(
                "CLUSTER_UNREACHABLE", f"the leader did not answer the probe: {error.name()}", where=f"{self._region} {tp}", retryable=True
            )
        # INVALID_TIMESTAMP and whatever else comes after authorisation, such as too few in-sync replicas.
        return "writable"

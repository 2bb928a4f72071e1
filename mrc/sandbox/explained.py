"""Counts what became of what a failover left behind, from the traffic's own logs and full reads of topics, and asks mrc nothing.

Every acknowledged event is *present* in the region that was failed over to (copied, or written there), or *divergent*; every divergent one
must stand once in the recovered topics and has then been *re-emitted* (once, beside that), *superseded* (the region took a write of its key
since the failover) or *quarantined*, as its topic's policy says. Whatever is not so is *unexplained*, and counts against mrc.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from mrc.sandbox.judge import reader
from mrc.sandbox.traffic_log import Acked, decode_event

_PREFIX = "mrc.recovered."


class Copy(msgspec.Struct, frozen=True):
    """A record of the traffic's in some topic.

    Attributes:
        origin: [topic, partition, offset] in the old region by its header; None where it was not recovered.
    """

    topic: str
    partition: int
    offset: int
    key: str
    id: str
    origin: tuple[str, int, int] | None


class Explained(msgspec.Struct, kw_only=True):
    """The sums over all acknowledged events.

    Attributes:
        unexplained: ids with the reason; none where mrc has kept its word.
    """

    acked: int
    present: int
    emitted: int
    superseded: int
    quarantined: int
    unexplained: dict[str, str]

    @property
    def divergent(self) -> int:
        """Events that only the old region had."""
        return self.emitted + self.superseded + self.quarantined

    @property
    def ok(self) -> bool:
        """Whether every acknowledged event is accounted for once."""
        return not self.unexplained and self.acked == self.present + self.divergent


def explain(acked: Iterable[Acked], copies: Sequence[Copy], policies: Mapping[str, str], *, failed_over_to: str) -> Explained:
    """Return what became of every acknowledged event.

    Args:
        copies: of the region that was failed over to: its topics, and the recovered ones, read at the end.
        policies: per topic.
        failed_over_to: that region.
    """
    acks = list(acked)
    recovered = [one for one in copies if one.topic.startswith(_PREFIX)]
    own = Counter(one.id for one in copies if one.origin is None)
    again = Counter(one.id for one in copies if one.origin is not None and not one.topic.startswith(_PREFIX))
    kept: dict[str, list[Copy]] = {}
    for one in recovered:
        kept.setdefault(one.id, []).append(one)
    # By the producers' own word: what the region itself acknowledged.
    written = {(ack.topic, ack.key) for ack in acks if ack.region == failed_over_to}
    found = Explained(acked=len(acks), present=0, emitted=0, superseded=0, quarantined=0, unexplained={})
    for ack in acks:
        if own[ack.id]:
            found.present += 1
            if again[ack.id] > ack.resent:  # one that was sent twice lies in the old log too, and nobody can tell that it is the same
                found.unexplained[ack.id] = "present, and re-emitted all the same"
            continue
        why = _account(
            ack, kept.get(ack.id, []), again[ack.id], policies.get(ack.topic, "quarantine"), (ack.topic, ack.key) in written, found
        )
        if why:
            found.unexplained[ack.id] = f"{ack.topic}-{ack.partition}@{ack.offset}: {why}"
    return found


def _account(ack: Acked, kept: Sequence[Copy], again: int, policy: str, rewritten: bool, found: Explained) -> str:  # noqa: FBT001
    """Count a divergent event; return what is wrong with its fate, empty where nothing is."""
    if len(kept) != 1:
        return f"it stands {len(kept)} times in the recovered topic"
    if kept[0].origin != (ack.topic, ack.partition, ack.offset):
        return f"the recovered topic says that it came from {kept[0].origin}"
    if again > 1:
        return f"it was re-emitted {again} times"
    if again:
        found.emitted += 1
        return "" if policy in ("append", "untouched") else f"it was re-emitted under the policy {policy}"
    if policy == "quarantine":
        found.quarantined += 1
        return ""
    if policy == "untouched" and rewritten:
        found.superseded += 1
        return ""
    return f"it was not re-emitted under the policy {policy}"


def read_copies(config: Mapping[str, str], topics: Sequence[str], *, timeout_s: float = 60.0) -> list[Copy]:
    """Return the traffic's committed records in ``topics`` and their recovered topics as they are now.

    Args:
        config: librdkafka's connection settings of a user that may read.
        timeout_s: for everything together.

    Raises:
        MrcError: ``CLUSTER_UNREACHABLE`` when it could not be done in time.
    """
    with reader(config, "reading failed") as consumer:
        return _read(consumer, topics, timeout_s)


def _read(consumer: Consumer, topics: Sequence[str], timeout_s: float) -> list[Copy]:
    until_s = time.monotonic() + timeout_s
    described = consumer.list_topics(timeout=timeout_s).topics
    names = [name for topic in topics for name in (topic, _PREFIX + topic) if name in described]
    reading = {(name, partition) for name in names for partition in described[name].partitions}
    consumer.assign([TopicPartition(name, partition, 0) for name, partition in reading])
    found: list[Copy] = []
    while reading:
        if time.monotonic() > until_s:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        for message in consumer.consume(2_000, 0.1):
            place = (str(message.topic()), int(message.partition() or 0))
            error = message.error()
            if error is None:
                found += _copies(message, *place)
            elif error.code() == KafkaError._PARTITION_EOF:
                reading.discard(place)
            else:
                raise KafkaException(error)
    return found


def _copies(message: Message, topic: str, partition: int) -> list[Copy]:
    event = decode_event(message.value())
    if event is None:
        return []
    headers: Any = message.headers()  # as in `mrc.adapters.kafka.reading`
    said = next((json.loads(value) for name, value in headers or () if name == "mrc-recovered" and value), None)
    origin = (said["topic"], said["partition"], said["offset"]) if said else None
    return [Copy(topic, partition, int(message.offset() or 0), event.key, event.id, origin)]

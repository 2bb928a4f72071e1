"""What groups commit, as it happens: the tail of ``__consumer_offsets``.

Asking for positions group by group costs a request each, so that many groups are asked rarely; the topic in which Kafka
keeps them tells every commit within milliseconds, also those made in transactions (once committed) and deletions.

Source of the formats: `OffsetCommitKey` and `OffsetCommitValue` of Kafka's group coordinator, versions 0-1 and 0-4. Other keys
describe groups and are passed over; a value of a later version raises, and the caller asks group by group again.
"""

from __future__ import annotations

import struct
import time
from struct import unpack_from

from confluent_kafka import Consumer, KafkaException, Message

from mrc.adapters.kafka.access import Access
from mrc.adapters.kafka.errors import Complaints, world_error
from mrc.adapters.kafka.reading import FOLLOWING, is_end, open_consumer
from mrc.core.errors import MrcError
from mrc.core.model import GroupId, Offset, TopicPartition
from mrc.ports import COMMITTED, Commit, Position

TOPIC = "__consumer_offsets"

_BATCH = 10_000
_KEY_VERSIONS = (0, 1)
_VALUE_VERSION_MAX = 4
_FLEXIBLE_FROM = 4
_EPOCH_FROM = 3


class CommitTail:
    """The port `Commits` over one consumer.

    Args:
        start: where each partition of the topic is read from.
        deadline_s: how long a cluster that stopped answering is asked before `poll` raises.
    """

    def __init__(self, access: Access, region: str, start: dict[TopicPartition, Offset], deadline_s: float) -> None:
        self._region = region
        self._deadline_s = deadline_s
        self._complaints = Complaints()
        self._doubtful_since_s: float | None = None
        self._consumer: Consumer | None = open_consumer(access, start, self._complaints, COMMITTED, FOLLOWING)

    def poll(self, timeout_s: float) -> list[Commit]:
        """See `Commits.poll`."""
        if self._consumer is None:
            raise MrcError("INVARIANT", "a closed tail was read")
        began_s = time.monotonic()
        messages = self._consumer.consume(1, timeout_s)
        if messages:
            messages += self._consumer.consume(_BATCH, 0)
        if self._complaints.take_down() and self._doubtful_since_s is None:
            self._doubtful_since_s = began_s
        if messages:
            self._doubtful_since_s = None
        elif self._doubtful_since_s is not None:
            self._require_cluster(self._consumer)
        return [commit for message in messages if (commit := self._commit(message)) is not None]

    def _commit(self, message: Message) -> Commit | None:
        problem = message.error()
        if is_end(problem):
            return None
        if problem is not None:
            raise world_error(problem, f"{self._region} {TOPIC}")
        return decode_commit(message.key() or b"", message.value(), self._region)

    def _require_cluster(self, consumer: Consumer) -> None:
        """After all brokers were lost, silence is not idleness: ask one of them before saying "nothing new"."""
        try:
            consumer.list_topics(TOPIC, timeout=self._deadline_s)
        except KafkaException as error:
            self._complaints.raise_refused(self._doubtful_since_s or 0.0, self._region)
            raise world_error(error.args[0], self._region) from error
        self._doubtful_since_s = None

    def close(self) -> None:
        """See `Commits.close`."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None


def decode_commit(key: bytes, value: bytes | None, region: str) -> Commit | None:
    """Return what a record of the topic says of a position; None for records that say something else.

    Raises:
        MrcError: ``VERSION_MISMATCH`` for a form that is not known, or that is cut short.
    """
    try:
        (version,) = unpack_from(">h", key)
        if version not in _KEY_VERSIONS:
            return None
        group, at = _string(key, 2)
        topic, at = _string(key, at)
        (partition,) = unpack_from(">i", key, at)
        position = None if value is None else _position(value)
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise MrcError("VERSION_MISMATCH", f"a record of {TOPIC} cannot be read: {error}", where=region) from None
    return Commit(GroupId(group), TopicPartition(topic, partition), position)


def _position(value: bytes) -> Position:
    version, offset = unpack_from(">hq", value)
    if not 0 <= version <= _VALUE_VERSION_MAX:
        raise struct.error(f"value of version {version}")
    at = 14 if version >= _EPOCH_FROM else 10
    metadata, _ = _compact_string(value, at) if version >= _FLEXIBLE_FROM else _string(value, at)
    # The Python driver commits metadata with a NUL behind it, and hides it when it reads: both ways must say the same.
    return Position(Offset(offset), metadata.removesuffix("\0"))


def _string(data: bytes, at: int) -> tuple[str, int]:
    (length,) = unpack_from(">h", data, at)
    return _text(data, at + 2, length)


def _compact_string(data: bytes, at: int) -> tuple[str, int]:
    """Read an unsigned varint of the length plus one, then the bytes."""
    length = shift = 0
    while True:
        byte = data[at]
        at += 1
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return _text(data, at, length - 1)


def _text(data: bytes, at: int, length: int) -> tuple[str, int]:
    if length < 0 or at + length > len(data):
        raise struct.error("a string is cut short")
    return data[at : at + length].decode(), at + length

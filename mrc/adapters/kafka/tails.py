"""Short, bounded reads: the last visible record of partitions, and a whole topic of mrc's own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from confluent_kafka import Consumer, Message
from confluent_kafka import TopicPartition as Wire

from mrc.adapters.kafka.access import Access
from mrc.adapters.kafka.errors import Complaints, unreachable, world_error
from mrc.adapters.kafka.reading import is_end, open_consumer, seen, whole
from mrc.core.model import Offset, Record, Seen, TopicPartition
from mrc.ports import COMMITTED, Sight

_FIRST_STRIDE = 4
"""One record and its transaction's marker, twice."""

_GROWTH = 8
"""How much further back each round looks when the last one saw markers and aborted records only."""


class _Visit:
    """Reads partitions piecewise with one consumer, up to a deadline."""

    def __init__(self, access: Access, region: str, deadline_s: float, sight: Sight = COMMITTED) -> None:
        self._sight = sight
        self._region = region
        self._deadline_s = deadline_s
        self._began_s = time.monotonic()
        self._complaints = Complaints()
        self._consumer: Consumer | None = None
        self._access = access

    def until(
        self,
        start: Mapping[TopicPartition, Offset],
        below: Mapping[TopicPartition, Offset],
        take: Callable[[TopicPartition, Message], None],
    ) -> None:
        """Give every visible record in ``[start, below)`` to ``take``, in offset order per partition."""
        if self._consumer is None:
            self._consumer = open_consumer(self._access, start, self._complaints, self._sight)
        else:
            self._consumer.assign([Wire(tp.topic, tp.partition, offset) for tp, offset in start.items()])
        left = set(start)
        while left:
            messages = self._consumer.consume(1, 0.05)
            if messages:
                messages += self._consumer.consume(10_000, 0)
            for message in messages:
                tp = TopicPartition(message.topic() or "", message.partition() or 0)
                if tp in left and self._is_last(tp, message, below[tp], take):
                    left.discard(tp)
            if left:
                self._complaints.raise_refused(self._began_s, self._region)
                if time.monotonic() - self._began_s > self._deadline_s:
                    raise unreachable(self._region, "read", self._deadline_s)

    def _is_last(self, tp: TopicPartition, message: Message, below: Offset, take: Callable[[TopicPartition, Message], None]) -> bool:
        error, offset = message.error(), message.offset() or 0
        if is_end(error):
            return True
        if error is not None:
            raise world_error(error, f"{self._region} {tp} at {offset}")
        if offset < below:
            take(tp, message)
        return offset >= below - 1

    def close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()


def last_records(
    access: Access,
    region: str,
    starts: Mapping[TopicPartition, Offset],
    below: Mapping[TopicPartition, Offset],
    deadline_s: float,
    sight: Sight,
) -> dict[TopicPartition, Seen | None]:
    """Return the last visible record in ``[starts, below)`` per partition of ``starts``, None where there is none.

    Looks back in growing strides, so a tail of markers costs a few fetches and a whole log is read at most once and a seventh.
    """
    found: dict[TopicPartition, Seen | None] = dict.fromkeys(starts)
    edge = {tp: below[tp] for tp in starts if below[tp] > starts[tp]}
    visit = _Visit(access, region, deadline_s, sight)

    def take(tp: TopicPartition, message: Message) -> None:
        found[tp] = seen(message, message.offset() or 0, stamped=tp.topic not in sight.unstamped)

    try:
        stride = _FIRST_STRIDE
        while edge:
            start = {tp: Offset(max(starts[tp], top - stride)) for tp, top in edge.items()}
            visit.until(start, edge, take)
            edge = {tp: start[tp] for tp in edge if found[tp] is None and start[tp] > starts[tp]}
            stride *= _GROWTH
    finally:
        visit.close()
    return found


def first_records(
    access: Access, region: str, tp: TopicPartition, span: tuple[Offset, Offset], limit: int, deadline_s: float, sight: Sight
) -> tuple[Record, ...]:
    """Return the first ``limit`` visible records in the half-open ``span`` of one partition."""
    found: list[Record] = []
    visit = _Visit(access, region, deadline_s, sight)
    begin, end = span
    stride = limit + _FIRST_STRIDE

    def take(_tp: TopicPartition, message: Message) -> None:
        found.append(whole(message))

    try:
        while begin < end and len(found) < limit:
            upto = Offset(min(end, begin + stride))
            visit.until({tp: begin}, {tp: upto}, take)
            begin, stride = upto, stride * _GROWTH
    finally:
        visit.close()
    return tuple(found[:limit])


def last_values(access: Access, region: str, tp: TopicPartition, span: tuple[Offset, Offset], deadline_s: float) -> dict[bytes, bytes]:
    """Return the last value per key in the half-open ``span`` of one partition; keys whose last value is a tombstone are left out."""
    values: dict[bytes, bytes] = {}

    def take(_tp: TopicPartition, message: Message) -> None:
        key, value = message.key(), message.value()
        if key is None:
            return
        if value is None:
            values.pop(key, None)
        else:
            values[key] = value

    start, end = span
    if start < end:
        visit = _Visit(access, region, deadline_s)
        try:
            visit.until({tp: start}, {tp: end}, take)
        finally:
            visit.close()
    return values

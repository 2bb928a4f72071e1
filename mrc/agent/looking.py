"""Bounded looks at one cluster's log for people: the records around a position, how many lie between two, a group's positions.

What a silent cluster cannot say is Unknown with the reason. Nothing here changes anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from itertools import takewhile
from typing import TypeVar

from mrc.agent.verifying import visible_from
from mrc.core.errors import MrcError
from mrc.core.model import GroupId, Known, Offset, Reading, TopicPartition, Unknown
from mrc.core.translation.shown import shown
from mrc.core.translation.sight import Sight
from mrc.core.views import HeaderView, RecordView
from mrc.ports import Cluster, Position, Record

T = TypeVar("T")

COUNTED_MAX = 100_000
"""Offsets between two positions that are read to count the records in them."""

HEADERS_MAX = 20
"""Headers of a record that are shown."""

_SILENT = ("cluster-unreachable", "authentication-failed")


def ask(read: Callable[[], T], now_ms: int) -> Reading[T]:
    """Return what ``read`` returns, or why it failed. A bug passes out of it."""
    try:
        return Known(read(), now_ms)
    except MrcError as error:
        if error.kind == "bug":
            raise
        return unknown(error, now_ms)


def unknown(error: MrcError, now_ms: int) -> Unknown:
    """Return a failure as a reading."""
    return Unknown(error.reason, str(error), now_ms)


def around(cluster: Cluster, tp: TopicPartition, offset: Offset, sight: Sight) -> tuple[tuple[Record, ...], tuple[Record, ...]]:
    """Return the visible record right before a position and the one that is read there next; empty where there is none.

    Raises:
        MrcError: world errors.
    """
    last = cluster.last_records([tp], {tp: offset}, sight)[tp]
    before = cluster.records(tp, Offset(last.offset), 1, sight) if last is not None else ()
    return before, cluster.records(tp, offset, 1, sight)


def between(cluster: Cluster, tp: TopicPartition, span: tuple[int, int], sight: Sight, now_ms: int) -> Reading[float]:
    """Return how many visible records lie in a half-open span of a log; unknown where it is too long to be counted."""
    if span[1] <= span[0]:
        return Known(0.0, now_ms)
    if span[1] - span[0] > COUNTED_MAX:
        return Unknown("too-many-to-count", f"{span[1] - span[0]:,} offsets", now_ms)
    return ask(lambda: float(_count(cluster, tp, span, sight)), now_ms)


def _count(cluster: Cluster, tp: TopicPartition, span: tuple[int, int], sight: Sight) -> int:
    low = max(span[0], cluster.starts([tp])[tp])
    high = min(span[1], cluster.ends([tp], sight.isolation)[tp])
    if high <= low:
        return 0
    return sum(1 for _ in takewhile(lambda seen: seen.offset < high, visible_from(cluster, tp, Offset(low), sight, COUNTED_MAX)))


def committed(positions: Reading[dict[TopicPartition, Position]], tp: TopicPartition, now_ms: int) -> Reading[float]:
    """Return what of a group's positions is committed on one partition."""
    if isinstance(positions, Unknown):
        return positions
    if tp not in positions.value:
        return Unknown("no-position", f"nothing is committed on {tp}", now_ms)
    return Known(float(positions.value[tp].offset), positions.at_ms)


def positions(cluster: Cluster, groups: Iterable[GroupId], now_ms: int) -> dict[GroupId, Reading[dict[TopicPartition, Position]]]:
    """Return what groups have committed in a cluster; one that does not answer is not asked again."""
    found: dict[GroupId, Reading[dict[TopicPartition, Position]]] = {}
    silent: Unknown | None = None
    for group in groups:
        reading = silent or ask(partial(cluster.positions, group), now_ms)
        if isinstance(reading, Unknown) and reading.reason in _SILENT:
            silent = reading
        found[group] = reading
    return found


def record_view(record: Record) -> RecordView:
    """Return what is shown of a record."""
    return RecordView(
        offset=record.offset,
        timestamp_ms=record.timestamp_ms,
        key=shown(record.key),
        key_bytes=_size(record.key),
        value=shown(record.value),
        value_bytes=_size(record.value),
        headers=tuple(HeaderView(shown(name.encode()), shown(value), _size(value)) for name, value in record.headers[:HEADERS_MAX]),
    )


def _size(data: bytes | None) -> int:
    return -1 if data is None else len(data)

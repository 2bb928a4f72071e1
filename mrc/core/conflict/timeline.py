"""From events in any order to decisions in one order: what is final, and what is only provisional yet.

A region's *watermark* says: all my events up to here have arrived. What is not later than every region's watermark is final: nothing that
may still come can be put before it. Final events are taken for good; the rest waits in order, and what stands *now* is what would stand if
nothing else came.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping

import msgspec

from mrc.core.conflict.entity import Entity, Outcome, Rules, copied, take
from mrc.core.conflict.events import EntityEvent, Hlc, order
from mrc.core.model import Region


class Timeline(msgspec.Struct):
    """One entity's events.

    Attributes:
        entity: what the final ones have come to.
        waiting: the others, each once, in the order in which they will be taken.
    """

    entity: Entity = msgspec.field(default_factory=Entity)
    waiting: list[EntityEvent] = msgspec.field(default_factory=list)


def arrive(timeline: Timeline, event: EntityEvent, rules: Rules) -> bool:
    """Note an event; return False for one that is known already. It may come at any time before its region's watermark passes it."""
    register = timeline.entity.registers.get(event.origin)
    if register is not None and event.number <= register.head.number:
        return False
    key = order(event, rules.ranks)
    at = bisect.bisect_left(timeline.waiting, key, key=lambda one: order(one, rules.ranks))
    if at < len(timeline.waiting) and timeline.waiting[at].id == event.id:
        return False
    timeline.waiting.insert(at, event)
    return True


def settle(timeline: Timeline, watermarks: Mapping[Region, Hlc], rules: Rules) -> list[Outcome]:
    """Take all events that are final now and return what stood after each of them."""
    if not timeline.waiting or any(region not in watermarks for region in rules.set.regions):
        return []
    final = min(watermarks[region] for region in rules.set.regions)
    return [outcome for _, outcome in take_upto(timeline, final, rules) if outcome is not None]


def take_upto(timeline: Timeline, final: Hlc, rules: Rules) -> list[tuple[EntityEvent, Outcome | None]]:
    """Take the waiting events whose clock is not later than ``final``; each with what stood after it, None where `take` says so."""
    done = bisect.bisect_right(timeline.waiting, final, key=lambda one: one.hlc)
    taken, timeline.waiting = timeline.waiting[:done], timeline.waiting[done:]
    return [(event, take(timeline.entity, event, rules)) for event in taken]


def provisional(timeline: Timeline, rules: Rules) -> list[Outcome]:
    """Return what would stand after each waiting event if no other came; nothing is changed."""
    if not timeline.waiting:
        return []
    entity = copied(timeline.entity)
    return [outcome for event in timeline.waiting if (outcome := take(entity, event, rules)) is not None]

"""Random histories: writers in regions that see one another late, links that deliver late and again, resolvers that die."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from mrc.core.conflict.events import EntityEvent, Hlc
from mrc.core.model import Region

ENTITY = "order/17"
TYPES = ("Placed", "Cancelled", "Shipped", "Delivered", "NoteAdded", "Refunded")

RULES: list[list[dict[str, Any]]] = [
    [{"by": "last_update_wins"}],
    [{"by": "first_update_wins"}],
    [{"by": "origin_priority", "regions": ["north", "west", "east"]}],
    [{"by": "max", "field": "amount"}],
    [{"by": "min", "field": "amount"}],
    [{"by": "state_precedence", "states": ["Delivered", "Shipped", "Cancelled", "Placed"]}],
    [
        {
            "by": "state_machine",
            "transitions": {"Placed": ["Cancelled", "Shipped"], "Cancelled": ["Refunded"], "Shipped": ["Delivered", "Refunded"]},
        }
    ],
    [{"by": "delete_wins"}],
    [{"by": "update_wins"}],
    [{"by": "merge_fields", "fields": ["note", "amount"]}],
    [{"by": "delta", "fields": ["change"]}],
    [
        {"by": "state_precedence", "states": ["Shipped", "Cancelled"], "pair": ["Cancelled", "Shipped"]},
        {"by": "first_update_wins", "any_of": ["Refunded"]},
        {"by": "merge_fields", "fields": ["note"], "any_of": ["NoteAdded"]},
        {"by": "max", "field": "amount"},
    ],
]

ASKING: list[list[dict[str, Any]]] = [
    [{"by": "manual", "ttl_s": 2}],
    [{"by": "manual", "ttl_s": 1, "any_of": ["Refunded", "Cancelled", "Shipped"]}, {"by": "merge_fields", "fields": ["note"]}],
    [{"by": "manual", "ttl_s": 600, "any_of": ["Placed", "Delivered", "Shipped"]}, {"by": "delta", "fields": ["change"]}],
]
"""Rules by which people decide."""


@dataclass
class Made:
    """A history: each region's log, and the rules to judge it by."""

    seed: int
    regions: list[str]
    rules: list[dict[str, Any]]
    logs: dict[str, list[EntityEvent]] = field(default_factory=dict)

    @property
    def events(self) -> list[EntityEvent]:
        return [event for log in self.logs.values() for event in log]


def make(seed: int, *, like: Made | None = None, entity: str = ENTITY, prefix: str = "") -> Made:
    """Return a history; with the regions and rules of another one, where that is given, and ids that begin with ``prefix``."""
    choose = random.Random(seed)
    regions = ["east", "west", "north"][: choose.choice((2, 2, 2, 3))]
    choose.shuffle(regions)
    rules = choose.choice(RULES)
    if like is not None:
        regions, rules = like.regions, like.rules
    made = Made(seed, regions, rules, {region: [] for region in regions})
    clocks = {region: choose.randrange(2_000) for region in regions}  # wall clocks go wrong
    mirrored = {(there, here): 0 for here in regions for there in regions if there != here}
    knows: dict[str, Hlc] = {region: Hlc(0) for region in regions}
    for _ in range(choose.randrange(1, 12)):
        here = choose.choice(regions)
        for there in regions:
            if there != here and choose.random() < 0.4:
                mirrored[there, here] = choose.randrange(mirrored[there, here], len(made.logs[there]) + 1)
                knows[here] = max([knows[here], *(event.hlc for event in made.logs[there][: mirrored[there, here]])])
        clocks[here] += choose.choice((0, 1, 5, 300))
        knows[here] = Hlc(clocks[here]) if knows[here] < Hlc(clocks[here]) else Hlc(knows[here].wall_ms, knows[here].counter + 1)
        seen = {}
        for there in regions:
            if there != here and (count := mirrored[there, here]):
                seen[Region(there)] = made.logs[there][count - 1].number
        last = made.logs[here][-1].number if made.logs[here] else 0
        fields: dict[str, Any] = {name: choose.randrange(4) for name in ("amount", "note", "change") if choose.random() < 0.6}
        event = EntityEvent(
            entity,
            f"{prefix}{here}-{len(made.logs[here])}",
            Region(here),
            last + choose.choice((1, 1, 7)),
            seen,
            knows[here],
            choose.choice(TYPES),
            fields,
            choose.random() < 0.15,
        )
        made.logs[here].append(event)
    return made


class Site(Protocol):
    """One region's resolver."""

    def deliver(self, event: EntityEvent) -> None: ...

    def passed(self, origin: str, hlc: Hlc | None) -> None:
        """All of the origin's events up to ``hlc`` have been delivered; None: all there will ever be."""

    def crash(self) -> None:
        """Lose what is not durable."""


def deliveries(made: Made, seed: int) -> Iterator[tuple[str, str, int]]:
    """Yield (what, region, index): each region's log first in, first out, with rewinds; watermarks, late; crashes."""
    choose = random.Random(seed)
    at = dict.fromkeys(made.regions, 0)
    while left := [region for region in made.regions if at[region] < len(made.logs[region])]:
        region = choose.choice(left)
        if at[region] and choose.random() < 0.15:
            at[region] = choose.randrange(at[region])
        yield "event", region, at[region]
        at[region] += 1
        if choose.random() < 0.3:
            yield "passed", region, at[region] - 1
        if choose.random() < 0.1:
            yield "crash", region, 0


def run(made: Made, site: Site, seed: int) -> None:
    furthest = dict.fromkeys(made.regions, -1)
    for what, region, index in deliveries(made, seed):
        if what == "event":
            site.deliver(made.logs[region][index])
            furthest[region] = max(furthest[region], index)
        elif what == "passed":
            site.passed(region, made.logs[region][min(index, furthest[region])].hlc)
        else:
            site.crash()
    for region in made.regions:
        site.passed(region, None)

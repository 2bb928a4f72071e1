"""Short histories as people tell them: who wrote what, having seen what; and what the rules make of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mrc.core.conflict.entity import Conflict, Outcome, Rules
from mrc.core.conflict.events import EntityEvent, Hlc, Json
from mrc.core.conflict.taking import Final, Kept, Pending, taken
from mrc.core.errors import MrcError
from mrc.core.model import Region, Value, Written

_APART_MS = 1000


class Told(Written, frozen=True):
    """One event of a story; events are told in the order in which they were written.

    Attributes:
        seen: ids of the other regions' events that its writer had seen; of its own region it has seen all before it.
        at_s: when it was written; else a second after the one before it.
    """

    id: str
    region: str
    type: str = ""
    seen: tuple[str, ...] = ()
    fields: Mapping[str, Json] = {}
    deleted: bool = False
    at_s: float | None = None


class Ending(Value, frozen=True):
    """What stands at the end of a story, and every conflict on the way."""

    outcome: Outcome
    conflicts: tuple[Conflict, ...]


def events(told: Sequence[Told], entity: str, regions: Sequence[str]) -> list[EntityEvent]:
    """Return the story's events with numbers, vectors and clocks.

    Raises:
        MrcError: ``RULES_INVALID`` where the story contradicts itself; its words name the event.
    """
    made: dict[str, EntityEvent] = {}
    numbers: dict[str, int] = {}
    clock = Hlc(0)
    for one in told:
        if one.id in made:
            raise MrcError("RULES_INVALID", f"event {one.id} is told twice", where=one.id)
        if one.region not in regions:
            raise MrcError("RULES_INVALID", f"event {one.id} is of {one.region}, which is no region of the rules", where=one.id)
        seen: dict[Region, int] = {}
        for name in one.seen:
            if name not in made or made[name].origin == one.region:
                message = f"event {one.id} has seen {name}, which is no event of another region told before it"
                raise MrcError("RULES_INVALID", message, where=one.id)
            origin = made[name].origin
            seen[origin] = max(seen.get(origin, 0), made[name].number)
        wanted = Hlc(clock.wall_ms + _APART_MS if one.at_s is None else int(one.at_s * 1000))
        after = [made[name].hlc for name in made if name in one.seen or made[name].origin == one.region]
        late = max(after, default=Hlc(-1))
        clock = wanted if wanted > late else Hlc(late.wall_ms, late.counter + 1)
        numbers[one.region] = numbers.get(one.region, 0) + 1
        made[one.id] = EntityEvent(entity, one.id, Region(one.region), numbers[one.region], seen, clock, one.type, one.fields, one.deleted)
    return list(made.values())


def ending(told: Sequence[Told], entity: str, rules: Rules) -> Ending:
    """Return how a story ends by the rules.

    Raises:
        MrcError: ``RULES_INVALID``, as `events`; also where there is no event.
    """
    pending = [Pending(b"", event, None, place, new=True) for place, event in enumerate(events(told, entity, rules.set.regions))]
    outcomes = [step.outcome for step in taken(Kept(), pending, (), rules) if isinstance(step, Final) and step.outcome is not None]
    if not outcomes:
        raise MrcError("RULES_INVALID", "the story has no event")
    return Ending(outcomes[-1], tuple(one.conflict for one in outcomes if one.conflict is not None))

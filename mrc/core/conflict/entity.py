"""The state of an entity: one register per region, and the outcome as a pure function of all of them.

A register holds what its region's events have come to: the last one, the most that any of them had seen of other regions, and the last
write of what rules look at, each with its number. A region's register is out of the race once another's last event has seen its last one.
What is left, where it is more than one, is in conflict; what each of them competes with are the writes that the others had not seen: an
order that was cancelled and then got a note still competes as cancelled.

Events must be taken in the order of `mrc.core.conflict.events.order`; then every region sees the same conflicts, with the same ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from mrc.core.conflict.events import EntityEvent, Hlc, Json, Ranks, order
from mrc.core.conflict.rules import (
    By,
    Condition,
    Delta,
    Extreme,
    Manual,
    MergeFields,
    OriginPriority,
    Resolution,
    Rule,
    RuleSet,
    Simple,
    StateMachine,
    StatePrecedence,
)
from mrc.core.errors import InvariantViolation
from mrc.core.model import Int64, Region, Value, Written

HowClosed = Literal["", "decision", "time", "superseded"]
"""By a person; nobody has answered in time; later events left nothing to answer."""

ConflictType = Literal["insert_exists", "update_origin_differs", "update_deleted", "delete_missing", "illegal_transition"]


class Write(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The last write of one thing by one region."""

    value: Json
    number: int
    hlc: Hlc
    event: str


class Register(msgspec.Struct, array_like=True, gc=False):
    """What one region's events about one entity have come to. Only `take` changes it."""

    head: EntityEvent
    seen: dict[Region, int] = {}
    state: Write | None = None
    noted: dict[str, int] = {}
    kept: dict[str, Write] = {}
    sums: dict[str, int | float] = {}


class Decision(Written, frozen=True):
    """A person's word about one conflict: it takes its place in the order of events as they do, and of two the first one counts.

    Attributes:
        id: its own, unique.
        key: the entity's record key.
        conflict: the conflict's id.
        winner: id of the event that shall stand, one of the conflict's.
        clock_ms: its place in the order: behind what is not later than that. Later than the mark before it in its region's log.
        region: where it was given.
        actor: who has given it.
        reason: why, in the person's words.
        at_ms: when, by the clock of the machine it was given at; for people.
    """

    id: str
    key: str
    conflict: str
    winner: str
    clock_ms: Int64
    region: Region
    actor: str
    reason: str = ""
    at_ms: Int64 = 0


class Closed(msgspec.Struct, frozen=True):
    """How the last question to a person ended; without a decision: nobody has answered in time."""

    conflict: str
    decision: Decision | None = None


class Entity(msgspec.Struct, array_like=True, gc=False):
    """All registers of an entity, and how the last question about it ended."""

    registers: dict[Region, Register] = {}
    closed: Closed | None = None


class Candidate(Value, frozen=True):
    """One side of a conflict.

    Attributes:
        event: its region's last event.
        type: the state it competes with: the last one that another side had not seen, else the event's own type.
        types: of those events that another side had not seen, as far as a rule asks for them; the event's own among them.
        unseen_since: the last number of its region that every other side had seen; -1: none.
        seen: what it had seen of the others.
        fields: the last writes of kept fields that another side had not seen.
    """

    event: EntityEvent
    type: str
    types: tuple[str, ...]
    unseen_since: int
    seen: Mapping[Region, int]
    fields: Mapping[str, Write]


class Conflict(Value, frozen=True):
    """An audited decision; the same in every region, id included.

    Attributes:
        id: made of the entity and the ids of the events in conflict.
        steps: how it was decided, sentence by sentence.
        open: a person is asked; the winner is provisional.
        on_loss: template of the compensation that losing events ask for; empty: none.
        ttl_s: of a manual rule: how long a person is asked.
        closed: how the question to a person ended; empty: it was none, or is open.
        decision: of the person.
    """

    id: str
    entity: str
    type: ConflictType
    candidates: tuple[Candidate, ...]
    rule: str
    rules_hash: str
    steps: tuple[str, ...]
    winner: str
    open: bool = False
    on_loss: str = ""
    ttl_s: int = 0
    closed: HowClosed = ""
    decision: Decision | None = None

    @property
    def until_ms(self) -> int:
        """The clock up to which a person's decision counts."""
        return max(one.event.hlc.wall_ms for one in self.candidates) + self.ttl_s * 1000

    @property
    def losers(self) -> tuple[EntityEvent, ...]:
        """Return the events that do not stand. They are never lost: the conflict holds them."""
        return tuple(one.event for one in self.candidates if one.event.id != self.winner)


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What stands after an event.

    Attributes:
        winner: the event that stands.
        fields: values that differ from the winner's own: merged fields and sums.
        conflict: how it came to stand; None where there was nothing to decide.
    """

    winner: EntityEvent
    fields: Mapping[str, Json] | None = None
    conflict: Conflict | None = None


@dataclass(frozen=True)
class Rules:
    """A rule set made ready: with what it looks at worked out once.

    Attributes:
        conditions: for each rule with an expression, by its id, the compiled one.
    """

    set: RuleSet
    conditions: Mapping[str, Condition] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in {
            "ranks": Ranks(self.set.regions),
            "regions": frozenset(self.set.regions),
            "states": self.set.states,
            "noted": self.set.noted,
            "kept": self.set.kept,
            "summed": self.set.summed,
            "types": self.set.states | self.set.noted,
            "fields": self.set.kept | self.set.summed,
            "hash": self.set.hash,
            "forgets_ms": self.set.forget_deleted_after_s * 1000 if isinstance(self.set.forget_deleted_after_s, int) else None,
        }.items():
            object.__setattr__(self, name, value)

    ranks: Ranks = field(init=False)
    regions: frozenset[Region] = field(init=False)
    states: frozenset[str] = field(init=False)
    noted: frozenset[str] = field(init=False)
    kept: frozenset[str] = field(init=False)
    summed: frozenset[str] = field(init=False)
    types: frozenset[str] = field(init=False)
    fields: frozenset[str] = field(init=False)
    hash: str = field(init=False)
    forgets_ms: int | None = field(init=False)


def take(entity: Entity, event: EntityEvent, rules: Rules) -> Outcome | None:
    """Take an event and return what stands then; None for one that came again, or after a later one of its region."""
    mine = note(entity, event, rules)
    if mine is None:
        return None
    if len(entity.registers) > 1:
        seen, origin, number = mine.seen, event.origin, event.number
        for other, one in entity.registers.items():
            if one is not mine and (seen.get(other, -1) < one.head.number or one.seen.get(origin, -1) >= number):
                return outcome(entity, rules)
    # It has seen all there is: by far the most frequent case.
    return Outcome(event, _sums(entity, rules) or None) if rules.summed else Outcome(event)


def note(entity: Entity, event: EntityEvent, rules: Rules) -> Register | None:
    """Take an event without asking what stands then; return its region's register.

    None for one that came again, or after a later one of its region.
    """
    register = entity.registers.get(event.origin)
    if register is None:
        register = entity.registers[event.origin] = Register(event)
    elif event.number <= register.head.number:
        return None
    else:
        register.head = event
    if event.seen:
        seen = register.seen
        for region, number in event.seen.items():
            if number > seen.get(region, -1):
                seen[region] = number
    type = event.type
    if type in rules.types:
        if type in rules.states:
            register.state = Write(type, event.number, event.hlc, event.id)
        if type in rules.noted:
            register.noted[type] = event.number
    if rules.fields and event.fields:
        _look_at(event.fields, register, event, rules)
    return register


def copied(entity: Entity) -> Entity:
    """Return an entity of its own that has come to the same: what either takes, the other does not."""
    return Entity(
        {
            region: Register(one.head, dict(one.seen), one.state, dict(one.noted), dict(one.kept), dict(one.sums))
            for region, one in entity.registers.items()
        },
        entity.closed,
    )


def _look_at(fields: Mapping[str, Json], register: Register, event: EntityEvent, rules: Rules) -> None:
    for name in rules.fields.intersection(fields):
        if name in rules.kept:
            register.kept[name] = Write(fields[name], event.number, event.hlc, event.id)
        if name in rules.summed and _is_number(fields[name]):
            register.sums[name] = _written(register.sums.get(name, 0) + fields[name])


def alone(entity: Entity) -> EntityEvent:
    """Return the one event that has seen, itself or through others, all that there is, whatever the rules; there must be one."""
    (region,) = _live(entity.registers)
    return entity.registers[region].head


def _live(registers: Mapping[Region, Register]) -> list[Region]:
    live = list(registers)
    return [region for region in live if not _superseded(registers[region], registers)] or live if len(live) > 1 else live


def outcome(entity: Entity, rules: Rules) -> Outcome:
    """Return what stands. Pure: of the registers, a person's answer and the rules, whatever order they came in."""
    registers = entity.registers
    live = _live(registers)
    if len(live) == 1:
        winner = registers[live[0]].head
        return Outcome(winner, _sums(entity, rules) or None) if rules.summed else Outcome(winner)
    live.sort(key=lambda region: (-rules.ranks.of(region), region))
    candidates = tuple([_candidate(region, live, registers) for region in live])
    return _resolve(entity, candidates, rules)


def _superseded(mine: Register, registers: Mapping[Region, Register]) -> bool:
    """Whether another's last event has seen this one's; two that say so of one another (their vectors are wrong) both stay."""
    region, number = mine.head.origin, mine.head.number
    for other, one in registers.items():
        if one is not mine and one.seen.get(region, -1) >= number and mine.seen.get(other, -1) < one.head.number:
            return True
    return False


def _candidate(region: Region, live: Sequence[Region], registers: Mapping[Region, Register]) -> Candidate:
    mine = registers[region]
    since = min([registers[other].seen.get(region, -1) for other in live if other != region])
    state = mine.state
    noted = [name for name, number in mine.noted.items() if number > since]
    return Candidate(
        mine.head,
        str(state.value) if state is not None and state.number > since else mine.head.type,
        tuple(sorted({mine.head.type, *noted})) if noted else (mine.head.type,),
        since,
        dict(mine.seen),
        {name: write for name, write in mine.kept.items() if write.number > since},
    )


# ---------------------------------------------------------------- deciding


class Verdict(Value, frozen=True):
    """What a resolution answers: the candidates that stand (more than one: a tie), and why."""

    standing: tuple[Candidate, ...]
    steps: tuple[str, ...]


def _resolve(entity: Entity, candidates: tuple[Candidate, ...], rules: Rules) -> Outcome:
    name = candidates[0].event.entity
    conflict_id = _conflict_id(name, candidates)
    steps = [(_concurrent if rules.set.detection == "causal" else _concurrent_by_marks)(candidates)]
    rule = _rule(candidates, rules, steps)
    verdict = _verdict(rule.resolve, candidates)
    steps += verdict.steps
    closed = entity.closed if entity.closed is not None and entity.closed.conflict == conflict_id else None
    decision = closed.decision if closed is not None else None
    if decision is not None:
        winner = next(one for one in candidates if one.event.id == decision.winner)
        steps.append(_decided(decision, winner))
    else:
        winner = _break_tie(verdict.standing, rules, steps)
    manual = rule.resolve if isinstance(rule.resolve, Manual) else None
    how: HowClosed = "" if closed is None else "time" if decision is None else "decision"
    fields = _merged(rule.resolve, candidates, winner, rules, steps) | _sums(entity, rules)
    conflict = Conflict(
        conflict_id,
        name,
        _type(rule.resolve, candidates, verdict),
        candidates,
        rule.id,
        rules.hash,
        tuple(steps),
        winner.event.id,
        manual is not None and closed is None,
        rule.on_loss,
        manual.ttl_s if manual is not None else 0,
        how,
        decision,
    )
    return Outcome(winner.event, fields or None, conflict)


def answered(conflict: Conflict, how: Literal["decision", "time", "superseded"], by: str, decision: Decision | None = None) -> Conflict:
    """Return an open conflict as it was closed. ``by``: the event that superseded it."""
    winner = decision.winner if decision is not None else conflict.winner
    chosen = next(one for one in conflict.candidates if one.event.id == winner)
    match how:
        case "superseded":
            step = f"{by} left nothing to decide"
        case "time":
            step = f"nobody decided within {conflict.ttl_s} s: {_named(chosen)} stands"
        case _:
            step = "" if decision is None else _decided(decision, chosen)
    steps = (*conflict.steps, step)
    return msgspec.structs.replace(conflict, open=False, closed=how, decision=decision, winner=winner, steps=steps)


def _decided(decision: Decision, chosen: Candidate) -> str:
    return f"{decision.actor} decided for {_named(chosen)}{': ' + decision.reason if decision.reason else ''}"


def _conflict_id(entity: str, candidates: Sequence[Candidate]) -> str:
    ids = "\0".join(sorted([one.event.id for one in candidates]))
    return hashlib.sha256(f"{entity}\0{ids}".encode()).hexdigest()[:20]


def _concurrent(candidates: Sequence[Candidate]) -> str:
    said = []
    for one in candidates:
        others = [other.event.origin for other in candidates if other is not one]
        knew = ", ".join([f"{other} up to {one.seen[other]}" if other in one.seen else f"nothing of {other}" for other in others])
        said.append(f"{_named(one)} (number {one.event.number}) had seen {knew}")
    return f"concurrent: {'; '.join(said)}"


def _concurrent_by_marks(candidates: Sequence[Candidate]) -> str:
    said = []
    for one in candidates:
        region = one.event.origin
        held = [(other.event.origin, one.seen.get(other.event.origin, 0)) for other in candidates if other is not one]
        knew = ", ".join(f"{other} up to offset {number - 1}" if number else f"nothing of {other}" for other, number in held)
        said.append(f"when {_named(one)} came to offset {one.event.number - 1}, {region} had read {knew}")
    return f"concurrent by the regions' marks: {'; '.join(said)}"


def _named(one: Candidate) -> str:
    own = "" if one.type == one.event.type else f", competing as {one.type}"
    return f"{one.event.origin}'s {one.event.type or ('deletion' if one.event.deleted else 'event')} {one.event.id}{own}"


def _rule(candidates: Sequence[Candidate], rules: Rules, steps: list[str]) -> Rule:
    types = [one.type for one in candidates]
    for rule in rules.set.rules:
        reason = _does_not_apply(rule, candidates, types, rules)
        if not reason:
            steps.append(f"rule {rule.id} applies")
            return rule
        steps.append(f"rule {rule.id} does not apply: {reason}")
    raise InvariantViolation("no rule applies: the last one must apply always", where=rules.set.entity)


def _does_not_apply(rule: Rule, candidates: Sequence[Candidate], types: Sequence[str], rules: Rules) -> str:
    when = rule.when
    if when.pair and sorted(types) != sorted(when.pair):
        return f"{' and '.join(types)} are not the pair {' and '.join(when.pair)}"
    if when.any_of and not [name for one in candidates for name in one.types if name in when.any_of]:
        return f"no event of either side is {' or '.join(when.any_of)}"
    if when.expr:
        condition = rules.conditions.get(rule.id)
        if condition is None:
            raise InvariantViolation("an expression was not compiled", where=rule.id)
        try:
            return "" if condition([_seen_by_expression(one) for one in candidates]) else "its expression is false"
        except (ArithmeticError, LookupError, TypeError, ValueError, RuntimeError) as error:
            return f"its expression cannot be evaluated: {error}"
    return ""


def _seen_by_expression(one: Candidate) -> dict[str, Json]:
    event = one.event
    return {
        "type": one.type,
        "types": list(one.types),
        "origin": event.origin,
        "id": event.id,
        "deleted": event.deleted,
        "at_ms": event.hlc.wall_ms,
        "fields": event.fields,
    }


def _verdict(resolve: Resolution, candidates: tuple[Candidate, ...]) -> Verdict:
    match resolve:
        case Simple(name=by):
            return _by(by, candidates)
        case OriginPriority(regions=regions):
            places = {region: place for place, region in enumerate(regions)}
            return _least(
                candidates, [places.get(one.event.origin, len(places)) for one in candidates], f"priority is {' before '.join(regions)}"
            )
        case Extreme(field=name, wants=wants):
            return _extreme(candidates, name, wants)
        case StatePrecedence(states=states):
            ranks = {state: place for place, state in enumerate(states)}
            return _least(candidates, [ranks.get(one.type, len(ranks)) for one in candidates], f"precedence is {' before '.join(states)}")
        case StateMachine(transitions=transitions):
            return _reachable(candidates, transitions)
        case Manual(provisional=by):
            verdict = _by(by, candidates)
            return Verdict(verdict.standing, (f"a person is asked; until then {by} stands", *verdict.steps))
        case MergeFields() | Delta():
            return _by("last_update_wins", candidates)


def _by(by: By, candidates: tuple[Candidate, ...]) -> Verdict:
    match by:
        case "last_update_wins":
            latest = max([one.event.hlc for one in candidates])
            standing = tuple([one for one in candidates if one.event.hlc == latest])
            return Verdict(standing, (f"the last update is of {latest}",))
        case "first_update_wins":
            first = min(one.event.hlc for one in candidates)
            standing = tuple(one for one in candidates if one.event.hlc == first)
            return Verdict(standing, (f"the first update is of {first}",))
        case "delete_wins" | "update_wins":
            wanted = by == "delete_wins"
            standing = tuple(one for one in candidates if one.event.deleted == wanted)
            said = "deletions" if wanted else "updates"
            return Verdict(standing or candidates, (f"{said} stand before {'updates' if wanted else 'deletions'}",))


def _least(candidates: tuple[Candidate, ...], places: Sequence[int], why: str) -> Verdict:
    best = min(places)
    return Verdict(tuple(one for one, place in zip(candidates, places, strict=True) if place == best), (why,))


def _extreme(candidates: tuple[Candidate, ...], name: str, wants: Literal["max", "min"]) -> Verdict:
    values: list[tuple[Candidate, float]] = []
    for one in candidates:
        value = one.event.fields.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            values.append((one, value))
    if not values:
        return Verdict(candidates, (f"no event has a number in {name}",))
    best = (max if wants == "max" else min)(value for _, value in values)
    return Verdict(tuple(one for one, value in values if value == best), (f"the {wants} of {name} is {best}",))


def _reachable(candidates: tuple[Candidate, ...], transitions: Mapping[str, Sequence[str]]) -> Verdict:
    def follows(later: Candidate, earlier: Candidate) -> bool:
        return later.type in transitions.get(earlier.type, ())

    for one in candidates:
        others = [other for other in candidates if other is not one]
        if all(follows(one, other) for other in others) and not any(follows(other, one) for other in others):
            return Verdict((one,), (f"{one.type} may follow {' and '.join(other.type for other in others)}, not the other way round",))
    return Verdict(candidates, (f"no state of {', '.join(one.type for one in candidates)} may follow all others and be followed by none",))


def _break_tie(standing: tuple[Candidate, ...], rules: Rules, steps: list[str]) -> Candidate:
    winner = standing[0]
    if len(standing) > 1:
        winner = max(standing, key=lambda one: order(one.event, rules.ranks))
        steps.append(f"tie, ended by hybrid clock, rank of the region, id: {_named(winner)}")
    steps.append(f"{_named(winner)} stands")
    return winner


def _merged(resolve: Resolution, candidates: Sequence[Candidate], winner: Candidate, rules: Rules, steps: list[str]) -> dict[str, Json]:
    if not isinstance(resolve, MergeFields):
        return {}
    found: dict[str, Json] = {}
    for name in resolve.fields:
        writes = [
            (write.hlc, rules.ranks.of(one.event.origin), write.event, write, one) for one in candidates if (write := one.fields.get(name))
        ]
        if writes:
            _, _, _, write, one = max(writes, key=lambda row: row[:3])
            if one is not winner:
                found[name] = write.value
            steps.append(f"{name} is {write.value!r}, written last by {one.event.origin}'s {write.event}")
    return found


def _sums(entity: Entity, rules: Rules) -> dict[str, Json]:
    if not rules.summed:
        return {}
    # Rules of before may have summed others.
    names = sorted({name for register in entity.registers.values() for name in register.sums if name in rules.summed})
    return {name: _written(sum(entity.registers[region].sums.get(name, 0) for region in sorted(entity.registers))) for name in names}


def _type(resolve: Resolution, candidates: Sequence[Candidate], verdict: Verdict) -> ConflictType:
    deleted = sum([one.event.deleted for one in candidates])
    if deleted == len(candidates):
        return "delete_missing"
    if deleted:
        return "update_deleted"
    if isinstance(resolve, StateMachine) and len(verdict.standing) > 1:
        return "illegal_transition"
    return "insert_exists" if max([one.unseen_since for one in candidates]) < 0 else "update_origin_differs"


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _written(total: float) -> int | float:
    """Return a sum as all regions write it: a whole one is no float, however it was kept; one that 64 bits do not hold is one."""
    if isinstance(total, float):
        return int(total) if total.is_integer() and abs(total) <= 2**53 else total
    return total if -(2**63) <= total < 2**63 else float(total)

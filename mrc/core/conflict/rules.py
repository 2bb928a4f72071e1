"""Rules: which event stands when regions wrote about one entity without knowing of one another.

A rule says when it applies and how it resolves. Rules know candidates, never sites: nothing here can say "local" or "remote", and no
clock but the events' own is read, so every region comes to the same answer from the same events.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec

from mrc.core.conflict.events import Json
from mrc.core.model import Region, Value, Written, encode

Detection = Literal["causal", "watermark"]

By = Literal["last_update_wins", "first_update_wins", "delete_wins", "update_wins"]


class OriginPriority(Written, frozen=True, tag_field="by", tag="origin_priority"):
    """The event of the region that is named first."""

    regions: tuple[Region, ...]


class Extreme(Written, frozen=True, tag_field="by", tag="extreme"):
    """The greatest (``max``) or smallest (``min``) value of a field; events without a number there lose."""

    field: str
    wants: Literal["max", "min"]


class StatePrecedence(Written, frozen=True, tag_field="by", tag="state_precedence"):
    """The branch whose last state is named first; a branch without any of these states loses."""

    states: tuple[str, ...]


class StateMachine(Written, frozen=True, tag_field="by", tag="state_machine"):
    """The branch whose state may legally follow those of all others, while theirs may not follow it.

    Attributes:
        transitions: from each state, the states that may come right after it.
    """

    transitions: Mapping[str, tuple[str, ...]]


class MergeFields(Written, frozen=True, tag_field="by", tag="merge_fields"):
    """Every named field as the branch that wrote it last has it; the last event stands for all the rest."""

    fields: tuple[str, ...]


class Delta(Written, frozen=True, tag_field="by", tag="delta"):
    """Every named field is the sum of what all regions' events add to it; the last event stands for all the rest."""

    fields: tuple[str, ...]


class Manual(Written, frozen=True, tag_field="by", tag="manual"):
    """A person decides; until then the provisional rule's winner stands, and for good when nobody has within the time.

    Attributes:
        ttl_s: after that long nobody is asked any more. It changes no winner.
    """

    ttl_s: int
    provisional: By = "last_update_wins"


class Simple(Written, frozen=True, tag_field="by", tag="simple"):
    """A rule without parameters."""

    name: By


Resolution = OriginPriority | Extreme | StatePrecedence | StateMachine | MergeFields | Delta | Manual | Simple

Condition = Callable[[Sequence[Mapping[str, Json]]], bool]
"""An expression over the candidates, in the order of their regions' ranks. It may raise: then the rule does not apply."""


class When(Written, frozen=True):
    """When a rule applies; all that is given must hold.

    Attributes:
        pair: the candidates' types are exactly these two, whichever is whose.
        any_of: one side wrote an event of one of these types that another had not seen.
        expr: an expression over ``events``; empty: none.
    """

    pair: tuple[str, ...] = ()
    any_of: tuple[str, ...] = ()
    expr: str = ""


class Rule(Written, frozen=True):
    """One rule.

    Attributes:
        id: its name in explanations.
        on_loss: template of the compensation that a losing event asks for; empty: none.
    """

    id: str
    resolve: Resolution
    when: When = When()
    on_loss: str = ""


class RuleSet(Value, frozen=True):
    """The rules of one kind of entity, the first that applies decides; the last one always applies.

    Attributes:
        entity: the kind of entity.
        rules: in order.
        regions: the order in which ties end, see `mrc.core.conflict.events.Ranks`.
        type: where an event's type is read, as rules files say it: ``json:$.event``.
        fields: where what rules look at is read, by its name.
        detection: how it is known what an event's writer had seen: ``causal``: its headers say it; ``watermark``: its region's marks do.
        forget_deleted_after_s: a deleted entity is forgotten so long after the latest clock that it is made of; unset: never.
    """

    entity: str
    rules: tuple[Rule, ...]
    regions: tuple[Region, ...]
    type: str = ""
    fields: Mapping[str, str] = {}
    detection: Detection = "causal"
    forget_deleted_after_s: int | msgspec.UnsetType = msgspec.UNSET

    @property
    def hash(self) -> str:
        """Return the version of the rules: of all that two regions must read and decide alike."""
        return hashlib.sha256(encode(self)).hexdigest()[:16]

    @property
    def states(self) -> frozenset[str]:
        """Return the types of events that change the state: all that a rule ranks, pairs or lets follow one another."""
        found: set[str] = set()
        for rule in self.rules:
            found |= set(rule.when.pair)
            if isinstance(rule.resolve, StatePrecedence):
                found |= set(rule.resolve.states)
            elif isinstance(rule.resolve, StateMachine):
                found |= {*rule.resolve.transitions, *(state for after in rule.resolve.transitions.values() for state in after)}
        return frozenset(found)

    @property
    def noted(self) -> frozenset[str]:
        """Return the types of events of which it is kept when each region wrote one last."""
        return frozenset(name for rule in self.rules for name in rule.when.any_of)

    @property
    def kept(self) -> frozenset[str]:
        """Return the fields of which each region's last write is kept."""
        return frozenset(name for rule in self.rules if isinstance(rule.resolve, MergeFields) for name in rule.resolve.fields)

    @property
    def summed(self) -> frozenset[str]:
        """Return the fields whose changes are summed."""
        return frozenset(name for rule in self.rules if isinstance(rule.resolve, Delta) for name in rule.resolve.fields)


def check(rules: RuleSet) -> list[tuple[str, str]]:
    """Return (rule id, problem) for everything that cannot converge or cannot be meant.

    Orders are total here by construction: what is refused are lists that name something twice, for then one of them wins against itself,
    and rules that are never reached.
    """
    found: list[tuple[str, str]] = []
    ids: set[str] = set()
    for number, rule in enumerate(rules.rules):
        last = number == len(rules.rules) - 1
        always = rule.when == When()
        if rule.id in ids:
            found.append((rule.id, "the name is there twice"))
        ids.add(rule.id)
        if last and not always:
            found.append((rule.id, "the last rule must apply always, so that every conflict is decided: leave its `when` out"))
        if always and not last:
            found.append((rule.id, "it applies always, so the rules after it are never reached"))
        if rule.when.pair and len(rule.when.pair) != 2:
            found.append((rule.id, f"a pair has two types, this one has {len(rule.when.pair)}"))
        found += [(rule.id, words) for words in _unsound(rule.resolve, rules.regions)]
    if not rules.rules:
        found.append(("", "there is no rule: at least a default is needed"))
    return found


def _unsound(resolve: Resolution, regions: tuple[Region, ...]) -> list[str]:
    match resolve:
        case OriginPriority(regions=named):
            missing = [region for region in regions if region not in named]
            unknown = [region for region in named if region not in regions]
            twice = _twice(named)
            return [
                *([f"it does not rank {', '.join(missing)}: two events from there would tie for another reason"] if missing else []),
                *([f"no such region: {', '.join(unknown)}"] if unknown else []),
                *([_cyclic(twice)] if twice else []),
            ]
        case StatePrecedence(states=states):
            return [_cyclic(twice)] if (twice := _twice(states)) else [] if states else ["it ranks no state"]
        case StateMachine(transitions=transitions):
            return [] if any(transitions.values()) else ["it allows no transition"]
        case MergeFields(fields=fields) | Delta(fields=fields):
            return [f"{', '.join(twice)} is there twice"] if (twice := _twice(fields)) else [] if fields else ["it names no field"]
        case Manual(ttl_s=ttl_s):
            return [] if ttl_s > 0 else ["its ttl must be more than 0"]
        case Extreme(field=field):
            return [] if field else ["it names no field"]
        case _:
            return []


def _twice(names: Sequence[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})


def _cyclic(twice: list[str]) -> str:
    name = twice[0]
    return (
        f"{name} is there twice, so it would win against what stands between its two places and lose to it as well: an event {name} in one "
        f"region and such another in the other would be decided by which of the places is read"
    )

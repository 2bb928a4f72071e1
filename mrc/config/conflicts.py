"""``conflicts.yaml``: which events are about which entity, and which of them stands when regions wrote without knowing of one another.

Owns the file's form and what is refused when it is loaded: rules that would not come to the same answer everywhere, each with events
that show it. An expression is compiled once, can say nothing of sites or clocks, and is bounded in length and nesting.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import cel
import msgspec

from mrc.config.located import Document, Key, build, read, refuse
from mrc.core.conflict import rules as conflict
from mrc.core.conflict.entity import Rules
from mrc.core.conflict.events import Json
from mrc.core.conflict.rules import By, Condition, Detection, Resolution, Rule, RuleSet, When
from mrc.core.model import Region

EXPRESSION_MAX = 500
MACROS_MAX = 2
FORGET_AFTER_S_MIN, FORGET_AFTER_S_MAX = 3600, 10 * 366 * 86_400
_MACRO = re.compile(r"\.\s*(?:all|exists|exists_one|filter|map)\s*\(\s*([A-Za-z_]\w*)\s*,")
_EVENT = r"events\s*\[\s*\d+\s*\]"
_STRING = re.compile(r"""\"(?:[^"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'""")
_ODD = re.compile(r"""[rRbB]["']|\"{3}|'{3}|//""")
"""Raw strings and such as go over several lines, and comments: there a quotation mark may mean something else."""

_VARIABLES = frozenset({"events"})
_PLACE = r"^(key|header:(?!mrc-).+|json:\$(\.[A-Za-z_][A-Za-z0-9_]*)+)$"

Place = Annotated[str, msgspec.Meta(pattern=_PLACE, description="`key`, `header:NAME` (none of mrc's own) or `json:$.field.field`")]
"""Where something is read in a record."""

SITE_RELATIVE: Mapping[str, str] = {
    name: f"{name} says another thing in every region: of a in east and b in west, each written without the other, {kept}"
    for kept, names in {
        "east would keep a and west b, for ever; name the region: `origin_priority: [east, west]`": (
            "local_wins",
            "keep_local",
            "local",
            "discard",
            "skip",
        ),
        "east would keep b and west a, for ever; name the region: `origin_priority: [east, west]`": (
            "remote_wins",
            "apply_remote",
            "remote",
            "overwrite",
        ),
    }.items()
    for name in names
}

WINDOW = (
    "a window cannot decide: of a at 0 s, b at 4 s and c at 8 s with a window of 5 s, a and b are in it, b and c are, a and c are not, so "
    "what stands would depend on which two are compared first; say by which field, state or region it is decided"
)
_WINDOWS = frozenset({"window", "within", "within_ms", "within_s", "time_window"})


class WrittenResolve(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A rule with parameters: exactly one of these."""

    origin_priority: tuple[str, ...] | None = None
    max: str | None = None
    min: str | None = None
    state_precedence: tuple[str, ...] | None = None
    state_machine: dict[str, tuple[str, ...]] | None = None
    merge_fields: tuple[str, ...] | None = None
    delta: tuple[str, ...] | None = None
    manual: WrittenManual | None = None


class WrittenManual(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A person decides."""

    ttl_s: Annotated[int, msgspec.Meta(gt=0)]
    provisional: By = "last_update_wins"


class WrittenRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One rule as people write it."""

    id: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="small letters, digits and dashes")]
    resolve: By | WrittenResolve
    when: When = When()
    on_loss: str = ""


class WrittenEntity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One kind of entity.

    Attributes:
        name: in reports.
        topics: where its events are, by their names in the region that wrote them.
        key: where the entity's key is read.
        type: where the event's type is read.
        fields: what rules may look at, by name.
        detection: how it is known that two events knew nothing of one another: by the producers' headers, or by the resolvers' marks.
        forget_deleted_after_s: how long a deleted entity is remembered, and events that come late are taken; left out: for good.
        rules: the first that applies decides.
    """

    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="small letters, digits and dashes")]
    topics: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    type: Place
    rules: Annotated[tuple[WrittenRule, ...], msgspec.Meta(min_length=1)]
    key: Place = "key"
    fields: dict[str, Place] = {}
    detection: Detection = "causal"
    forget_deleted_after_s: Annotated[int, msgspec.Meta(ge=FORGET_AFTER_S_MIN, le=FORGET_AFTER_S_MAX)] | msgspec.UnsetType = msgspec.UNSET


class WrittenConflicts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file."""

    version: Literal[1]
    regions: Annotated[tuple[str, ...], msgspec.Meta(min_length=2)]
    entities: Annotated[tuple[WrittenEntity, ...], msgspec.Meta(min_length=1)]


class EntityRules(msgspec.Struct, frozen=True):
    """One kind of entity, ready to be resolved."""

    written: WrittenEntity
    rules: Rules


def load_conflicts(path: Path) -> tuple[EntityRules, ...]:
    """Return what the file at ``path`` says, one for each kind of entity.

    Raises:
        MrcError: ``RULES_INVALID`` at the first problem (file, line, key), with the others listed in its message.
    """
    document = read(path, missing="RULES_INVALID", invalid="RULES_INVALID")
    if not document.problems:
        _refuse_what_cannot_converge(document)
    if not document.problems:
        document.examine(WrittenConflicts)
    if document.problems:
        raise refuse("RULES_INVALID", document.sorted_problems)
    written = build(document.data, WrittenConflicts, path.parent)
    found = tuple(_entity(document, number, one, written) for number, one in enumerate(written.entities))
    _once(document, ("regions",), written.regions, "region")
    _once(document, ("entities",), [one.name for one in written.entities], "entity")
    _once(document, ("entities",), [topic for one in written.entities for topic in one.topics], "topic")
    if document.problems:
        raise refuse("RULES_INVALID", document.sorted_problems)
    return found


def ready(rules: RuleSet) -> Rules:
    """Return rules that were loaded from a file once, and written down since, ready to be applied again.

    An expression that cannot be compiled any more cannot be evaluated: its rule does not apply, and every decision says why.
    """
    compiled = {rule.id: _compiled_or_why(rule.when.expr) for rule in rules.rules if rule.when.expr}
    return Rules(rules, {id: _never(one) if isinstance(one, str) else one for id, one in compiled.items()})


def _never(why: str) -> Condition:
    def condition(events: Sequence[Mapping[str, Json]]) -> bool:
        raise ValueError(why)

    return condition


def load_resolvable(path: Path, regions: Sequence[Region], topics: Sequence[str]) -> tuple[EntityRules, ...]:
    """Return what the file at ``path`` says, for a resolver of these regions and topics.

    Raises:
        MrcError: ``RULES_INVALID``, as `load_conflicts`; also where the file does not fit them, or asks for what no resolver does.
    """
    found = load_conflicts(path)
    document = read(path, missing="RULES_INVALID", invalid="RULES_INVALID")
    named = build(document.data, WrittenConflicts, path.parent).regions
    if set(named) != set(regions):
        document.problem(("regions",), f"{', '.join(named)}: the replication group's regions are {', '.join(regions)}")
    for number, one in enumerate(found):
        at: Key = ("entities", number)
        written = one.written
        if written.key != "key":
            document.problem((*at, "key"), f"{written.key} does not say in which partition an event is; allowed: key")
        if len(written.topics) > 1:
            document.problem((*at, "topics"), f"events about one {written.name} must be in one topic, for only there they have an order")
        for index, topic in enumerate(written.topics):
            if topic not in topics:
                document.problem((*at, "topics", index), f"{topic} is no topic of the replication group; allowed: {', '.join(topics)}")
    if document.problems:
        raise refuse("RULES_INVALID", document.sorted_problems)
    return found


def _refuse_what_cannot_converge(document: Document) -> None:
    """Answer what people may know from elsewhere, before it is called an unknown word."""
    entities = document.data.get("entities") if isinstance(document.data, dict) else None
    for number, entity in enumerate(entities if isinstance(entities, list) else []):
        rules = entity.get("rules") if isinstance(entity, dict) else None
        for index, rule in enumerate(rules if isinstance(rules, list) else []):
            if not isinstance(rule, dict):
                continue
            at: Key = ("entities", number, "rules", index)
            resolve, when = rule.get("resolve"), rule.get("when")
            for name in [resolve] if isinstance(resolve, str) else list(resolve) if isinstance(resolve, dict) else []:
                if name in SITE_RELATIVE:
                    document.problem((*at, "resolve"), SITE_RELATIVE[name])
            for name in (set(when) if isinstance(when, dict) else set()) | (set(resolve) if isinstance(resolve, dict) else set()):
                if name in _WINDOWS:
                    document.problem((*at, "when" if isinstance(when, dict) and name in when else "resolve", name), WINDOW)


def _entity(document: Document, number: int, one: WrittenEntity, written: WrittenConflicts) -> EntityRules:
    at: Key = ("entities", number, "rules")
    made: list[Rule] = []
    conditions: dict[str, Condition] = {}
    for index, rule in enumerate(one.rules):
        resolution = _resolution(document, (*at, index, "resolve"), rule.resolve)
        if resolution is None:
            continue
        for name in _fields(resolution):
            if name not in one.fields:
                known = f"it has {', '.join(sorted(one.fields))}" if one.fields else "it has none"
                document.problem((*at, index, "resolve"), f"{name} is not in `fields`, so nobody reads it: {known}")
        made.append(Rule(rule.id, resolution, rule.when, rule.on_loss))
        if rule.when.expr:
            condition = _compiled_or_why(rule.when.expr)
            if isinstance(condition, str):
                document.problem((*at, index, "when", "expr"), condition)
            else:
                conditions[rule.id] = condition
    rules = RuleSet(
        one.name, tuple(made), tuple(map(Region, written.regions)), one.type, one.fields, one.detection, one.forget_deleted_after_s
    )
    if not document.problems:
        places = {rule.id: index for index, rule in enumerate(one.rules)}
        for name, words in conflict.check(rules):
            document.problem((*at, places[name], "id") if name in places else at, words)
    return EntityRules(one, Rules(rules, conditions))


def _fields(resolution: Resolution) -> tuple[str, ...]:
    """Return the fields that a rule reads."""
    match resolution:
        case conflict.Extreme(field=name):
            return (name,)
        case conflict.MergeFields(fields=names) | conflict.Delta(fields=names):
            return names
        case _:
            return ()


def _resolution(document: Document, key: Key, written: By | WrittenResolve) -> Resolution | None:
    if isinstance(written, str):
        return conflict.Simple(written)
    given = [name for name in written.__struct_fields__ if getattr(written, name) is not None]
    if len(given) != 1:
        document.problem(key, f"exactly one rule is wanted, there are {len(given)}{': ' + ', '.join(given) if given else ''}")
        return None
    value: Any = getattr(written, given[0])
    match given[0]:
        case "origin_priority":
            return conflict.OriginPriority(value)
        case "max" | "min" as wants:
            return conflict.Extreme(value, wants)
        case "state_precedence":
            return conflict.StatePrecedence(value)
        case "state_machine":
            return conflict.StateMachine(value)
        case "merge_fields":
            return conflict.MergeFields(value)
        case "delta":
            return conflict.Delta(value)
        case _:
            return conflict.Manual(value.ttl_s, value.provisional)


def _compiled_or_why(text: str) -> Condition | str:
    """Return the expression, compiled; words where it is none."""
    if len(text) > EXPRESSION_MAX:
        return f"longer than {EXPRESSION_MAX} characters"
    if len(_MACRO.findall(text)) > MACROS_MAX:
        return f"more than {MACROS_MAX} of all, exists, exists_one, filter and map: it could take for ever"
    try:
        program = cel.compile(text)
    except ValueError as error:
        return f"not an expression: {str(error).splitlines()[0][:200]}"
    unknown = sorted(set(program.variables()) - _VARIABLES - set(_MACRO.findall(text)))
    if unknown:
        return f"there is no {', '.join(unknown)}: an expression knows `events` alone, so that it says the same everywhere"

    named = named_fields(text)

    def condition(events: Sequence[Mapping[str, Json]]) -> bool:
        # To hand a value over takes longer than to look at it.
        some = list(events) if named is None else [{name: one[name] for name in named if name in one} for one in events]
        answer = program.execute({"events": some})
        if not isinstance(answer, bool):
            raise TypeError(f"it is {answer!r}, not true or false")
        return answer

    return condition


def named_fields(text: str) -> frozenset[str] | None:
    """Return the fields of events that an expression can look at; None: all, for it looks at an event otherwise than by fields' names."""
    if _ODD.search(text):
        return None
    text = _STRING.sub('""', text)
    variables = sorted(set(_MACRO.findall(text)))
    of_event = f"(?:{'|'.join([_EVENT, *variables])})"
    names = re.findall(rf"(?<![\w.]){of_event}\s*\.\s*([a-z_]\w*)(?!\w)(?!\s*\()", text)
    # What is left when all that is known to be harmless has gone: any other mention of an event, or of all of them.
    left = re.sub(rf"(?<![\w.]){of_event}\s*\.\s*[a-z_]\w*(?!\w)(?!\s*\()", "", text)
    left = re.sub(r"(?<![\w.])events\s*\.\s*(?:all|exists|exists_one|map)\s*\(\s*\w+\s*,", "", left)
    left = re.sub(r"(?<![\w.])events\s*\.\s*size\s*\(\s*\)|(?<![\w.])size\s*\(\s*events\s*\)", "", left)
    return None if {"events", *variables} & set(re.findall(r"\w+", left)) else frozenset(names)


def _once(document: Document, key: Key, names: Sequence[str], noun: str) -> None:
    for name in sorted({name for name in names if names.count(name) > 1}):
        document.problem(key, f"{noun} {name} is there twice")

"""What should stand, by brute force over all events; imports nothing that it judges.

Events and rules are plain dictionaries. Nothing is folded: after each event, everything before it is looked at again. Where rules change,
each event says by which ones it is decided; what came before them is known as far as the rules of then looked at it.
"""

from __future__ import annotations

import hashlib
from typing import Any

Event = dict[str, Any]
"""id, origin, number, seen {region: number}, hlc (wall_ms, counter), type, fields, deleted; where rules change also rules, and refused:
those cannot read it. Where deleted entities are forgotten also memory_ms, the clock from which on all is remembered at its place; and
said_ms, its own clock's, where it was given another."""


def in_order(events: list[Event], regions: list[str]) -> list[Event]:
    each = {event["id"]: event for event in events}
    return sorted(each.values(), key=lambda e: (e["hlc"], len(regions) - regions.index(e["origin"]), e["id"]))


def history(entity: str, events: list[Event], rules: list[dict[str, Any]], regions: list[str]) -> list[dict[str, Any]]:
    """Return what stands after each event that is later than all before it of its region."""
    found: list[dict[str, Any]] = []
    past: list[Event] = []
    for event in in_order(events, regions):
        if any(one["origin"] == event["origin"] and one["number"] >= event["number"] for one in past):
            continue
        past.append({"rules": rules, **event})
        if not event.get("refused"):
            found.append(_standing(entity, [one for one in past if not one.get("refused")], regions)[0])
    return found


def audit(
    entity: str, events: list[Event], decisions: list[dict[str, Any]], rules: list[dict[str, Any]], regions: list[str], now: tuple[int, int]
) -> tuple[list[tuple[str, str, str]], dict[str, Any] | None]:
    """Return every conflict as (id, winner, how) in order, and what stands in the end, where people decide as well.

    ``how``: ``rule``, ``open`` (a person is asked), ``decision ID``, ``time`` (nobody answered in time), ``superseded``. ``decisions``: id,
    conflict, winner, clock_ms, at_ms. ``now``: up to there everything is known. Where an entity is deleted, nobody is asked and all that
    came is from before the memory, everything begins anew; what says itself to be from before it never came.
    """
    told: list[tuple[str, str, str]] = []
    closed: dict[str, tuple[str, str | None]] = {}  # conflict: how, winner by a person
    stands: dict[str, Any] | None = None
    asked: dict[str, Any] | None = None
    past: list[Event] = []
    came_ms: list[int] = []
    turns = [((*one["hlc"], 0), place, one) for place, one in enumerate(in_order(events, regions))]
    words = sorted(decisions, key=lambda one: (one["clock_ms"], one["at_ms"], one["id"]))
    turns += [((one["clock_ms"], 0, 1), place, one) for place, one in enumerate(words)]
    for clock, _, one in [*sorted(turns, key=lambda turn: turn[:2]), ((*now, 2), 0, None)]:
        if asked and stands and ((asked["until_ms"], 0) < clock[:2] or (one is None and (asked["until_ms"], 0) <= clock[:2])):
            told.append((stands["conflict"], stands["winner"], "time"))
            closed[stands["conflict"]] = ("time", None)
            asked = None
        if one is None:
            break
        if "conflict" in one:
            if asked and stands and stands["conflict"] == one["conflict"] and one["winner"] in asked["sides"]:
                stands = {**stands, "winner": one["winner"]}
                closed[one["conflict"]] = (f"decision {one['id']}", one["winner"])
                told.append((one["conflict"], one["winner"], f"decision {one['id']}"))
                asked = None
            continue
        if not _counts(one, past, came_ms, closed, stands, asked):
            continue
        past[-1] = {"rules": rules, **one}
        before = stands
        stands, sides, rule = _standing(entity, [each for each in past if not each.get("refused")], regions)
        id = stands["conflict"]
        if asked and before and before["conflict"] != id:
            told.append((before["conflict"], before["winner"], "superseded"))
        asked = None
        if id is None:
            continue
        how, person = closed.get(id, ("", None))
        if person is not None:
            stands = {**stands, "winner": person}
        elif rule["by"] == "manual" and not how:
            how = "open"
            asked = {"sides": [s["id"] for s in sides], "until_ms": max(s["hlc"][0] for s in sides) + rule["ttl_s"] * 1000}
        told.append((id, stands["winner"], how or "rule"))
    return told, stands


def _counts(
    one: Event, past: list[Event], came_ms: list[int], closed: dict[str, Any], stands: dict[str, Any] | None, asked: dict[str, Any] | None
) -> bool:
    """Put an event behind those of the past, which is forgotten if it is time; False: it is too late, overtaken, or cannot be read."""
    memory_ms, says_ms, refused = one.get("memory_ms", -1), one.get("said_ms", one["hlc"][0]), one.get("refused", False)
    if says_ms < memory_ms:
        return False
    deleted = all(each.get("refused") or not stands or each["id"] != stands["winner"] or each["deleted"] for each in past)
    if not asked and deleted and max(came_ms, default=-1) < memory_ms:
        for some in (past, came_ms, closed):
            some.clear()
    overtaken = any(before["origin"] == one["origin"] and before["number"] >= one["number"] for before in past)
    came_ms.append(says_ms if overtaken or refused else one["hlc"][0])
    if not overtaken:
        past.append(one)
    return not overtaken and not refused


def _standing(entity: str, past: list[Event], regions: list[str]) -> tuple[dict[str, Any], list[Event], dict[str, Any]]:
    """Return what stands, and where it is in conflict the last events of the sides, and the rule."""
    rules = past[-1]["rules"]
    logs = {region: [e for e in past if e["origin"] == region] for region in regions}
    logs = {region: log for region, log in logs.items() if log}

    def knows(region: str, other: str) -> int:
        return max((e["seen"].get(other, -1) for e in logs[region]), default=-1)

    def beaten(region: str) -> bool:
        last = logs[region][-1]["number"]
        return any(knows(other, region) >= last and knows(region, other) < logs[other][-1]["number"] for other in logs if other != region)

    live = [region for region in logs if not beaten(region)] or list(logs)
    sums: dict[str, float] = {}
    for name in _named(rules, "delta"):
        values = [e["fields"][name] for e in past if name in e["fields"] and name in _named(e["rules"], "delta")]
        if values:
            sums[name] = sum(values)
    if len(live) == 1:
        return {"winner": logs[live[0]][-1]["id"], "fields": sums, "conflict": None}, [], {}
    sides = []
    for region in live:
        since = min(knows(other, region) for other in live if other != region)
        branch = [e for e in logs[region] if e["number"] > since]
        states = [e["type"] for e in branch if e["type"] in _states(e["rules"])]
        head = logs[region][-1]
        sides.append({"head": head, "type": states[-1] if states else head["type"], "branch": branch})
    rule = next(one for one in rules if _applies(one, sides))
    winner = _winner(rule, sides, regions)
    fields = dict(sums)
    if rule["by"] == "merge_fields":
        for name in rule["fields"]:
            writes = [
                (e["hlc"], len(regions) - regions.index(e["origin"]), e["id"], e["fields"][name], s)
                for s in sides
                for e in s["branch"]
                if name in e["fields"] and name in _named(e["rules"], "merge_fields")
            ]
            last_of_each = [max((w for w in writes if w[4] is s), key=lambda w: w[:3]) for s in sides if any(w[4] is s for w in writes)]
            if last_of_each:
                best = max(last_of_each, key=lambda w: w[:3])
                if best[4] is not winner:
                    fields[name] = best[3]
    ids = "\0".join(sorted(s["head"]["id"] for s in sides))
    id = hashlib.sha256(f"{entity}\0{ids}".encode()).hexdigest()[:20]
    return {"winner": winner["head"]["id"], "fields": fields, "conflict": id}, [s["head"] for s in sides], rule


def _states(rules: list[dict[str, Any]]) -> set[str]:
    found: set[str] = set()
    for rule in rules:
        found |= set(rule.get("pair", ())) | set(rule.get("states", ()))
        for before, after in rule.get("transitions", {}).items():
            found |= {before, *after}
    return found


def _named(rules: list[dict[str, Any]], by: str) -> set[str]:
    return {name for rule in rules if rule["by"] == by for name in rule["fields"]}


def _applies(rule: dict[str, Any], sides: list[dict[str, Any]]) -> bool:
    types = sorted(s["type"] for s in sides)
    if "pair" in rule and types != sorted(rule["pair"]):
        return False
    noted = {e["type"] for s in sides for e in s["branch"] if any(e["type"] in one.get("any_of", ()) for one in e["rules"])}
    written = noted | {s["head"]["type"] for s in sides}
    return not ("any_of" in rule and not written & set(rule["any_of"]))


def _winner(rule: dict[str, Any], sides: list[dict[str, Any]], regions: list[str]) -> dict[str, Any]:
    def tie(s: dict[str, Any]) -> tuple[Any, ...]:
        return (s["head"]["hlc"], -regions.index(s["head"]["origin"]), s["head"]["id"])

    by = rule["by"]
    if by == "first_update_wins":
        first = min(s["head"]["hlc"] for s in sides)
        return max((s for s in sides if s["head"]["hlc"] == first), key=tie)
    if by == "origin_priority":
        return min(sides, key=lambda s: rule["regions"].index(s["head"]["origin"]))
    if by in ("max", "min"):
        have = [s for s in sides if rule["field"] in s["head"]["fields"]]
        if not have:
            return max(sides, key=tie)
        sign = 1 if by == "max" else -1
        return max(have, key=lambda s: (sign * s["head"]["fields"][rule["field"]], *tie(s)))
    if by == "state_precedence":
        places = {state: place for place, state in enumerate(rule["states"])}
        return max(sides, key=lambda s: (-places.get(s["type"], 99), *tie(s)))
    if by == "state_machine":
        allowed = rule["transitions"]
        for s in sides:
            others = [o for o in sides if o is not s]
            if all(s["type"] in allowed.get(o["type"], ()) for o in others) and all(
                o["type"] not in allowed.get(s["type"], ()) for o in others
            ):
                return s
        return max(sides, key=tie)
    if by in ("delete_wins", "update_wins"):
        wanted = by == "delete_wins"
        return max(sides, key=lambda s: (s["head"]["deleted"] == wanted, *tie(s)))
    return max(sides, key=tie)  # last_update_wins, merge_fields, delta, manual

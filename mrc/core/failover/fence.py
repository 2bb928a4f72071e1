"""Which ACL bindings make a fence, and which settings make one unsafe. Pure functions of a unit and an observation.

A fence is made of DENY bindings for application principals, never for the replicator's (a write fence that stopped MM2
would stop the way home). A region that the record does not name is fenced at rest: writes and the groups' reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

import msgspec

from mrc.core.inventory import Binding, TopicInfo, Unit
from mrc.core.model import ActiveRecord, Region, Written
from mrc.core.views import FindingView

TEN_YEARS_MS = 10 * 365 * 24 * 3600 * 1000
"""How far in the future a probe's timestamp lies: beyond any sensible ``message.timestamp.after.max.ms``."""

_WRITING = frozenset({"write", "all"})
_READING = frozenset({"read", "all"})


class Wanted(NamedTuple):
    """What a region's fence has to refuse now."""

    writes: bool
    reads: bool


MARKED = "User:mrc-self-fenced:"
"""Begins a principal that nobody has: a DENY for it tells which of the DENYs beside it agents made without ZooKeeper."""

SELF_FENCE_MARGIN_S = 10.0
"""Seconds from a self-fence's deadline within which it stands: the time between two looks and every deadline of a call in one."""


class SelfImposed(NamedTuple):
    """What agents refused in a region without ZooKeeper.

    Attributes:
        marks: the bindings that tell so; they refuse nobody.
        made: what they tell of, whether it is still there or not.
        since_ms: when the first was made, by the wall clock of the agent that made it; for people only.
    """

    marks: frozenset[Binding]
    made: frozenset[Binding]
    since_ms: int


class FenceRecord(Written, frozen=True):
    """Bindings that mrc really added in a region: only these are ever removed. One ZooKeeper node per region.

    Attributes:
        bindings: added by mrc; written before they are made, so that a killed agent's successor knows them.
        block: the failover that has the flow into the region refused its writes, until that flow is STOPPED; empty: none.
    """

    bindings: tuple[Binding, ...] = ()
    block: str = ""
    version: Literal[1] = 1


def wanted(record: ActiveRecord, region: Region) -> Wanted:
    """Return what the record wants of a region's fence.

    Only the open region is free; a draining one refuses writes but lets consumers finish and commit.
    """
    if record.region == region and record.state == "open":
        return Wanted(writes=False, reads=False)
    if record.region == region and record.state == "draining":
        return Wanted(writes=True, reads=False)
    return Wanted(writes=True, reads=True)


def writers(unit: Unit, bindings: Iterable[Binding]) -> frozenset[str]:
    """Return the principals that a write fence names: configured ones and all that an ALLOW lets write, less the exempt."""
    found = {b.principal for b in bindings if b.permission == "allow" and b.operation in _WRITING and covers_topics(b, unit)}
    probe = {unit.probe} if unit.probe else set()
    return (frozenset(unit.writers) | found | probe) - frozenset(unit.exempt)


def readers(unit: Unit, bindings: Iterable[Binding]) -> frozenset[str]:
    """Return the principals that a read fence names, found in the same way on the unit's groups."""
    found = {b.principal for b in bindings if b.permission == "allow" and b.operation in _READING and covers_groups(b, unit)}
    return (frozenset(unit.readers) | found) - frozenset(unit.exempt)


def _covers(binding: Binding, names: Iterable[str]) -> bool:
    if binding.pattern == "prefixed":
        return any(name.startswith(binding.name) for name in names)
    return binding.name == "*" or binding.name in names


def covers_topics(binding: Binding, unit: Unit) -> bool:
    """Whether a binding is about a topic of the unit."""
    return binding.resource == "topic" and _covers(binding, unit.topics)


def covers_groups(binding: Binding, unit: Unit) -> bool:
    """Whether a binding is about a consumer group of the unit."""
    return binding.resource == "group" and _covers(binding, unit.groups)


def denies(unit: Unit, bindings: frozenset[Binding], want: Wanted) -> frozenset[Binding]:
    """Return the DENY bindings that the fence consists of; empty where nothing is refused."""
    found: set[Binding] = set()
    if want.writes:
        names = writers(unit, bindings)  # once: there are as many bindings as topics and groups
        found |= {Binding("topic", topic, "literal", principal, "write", "deny") for topic in unit.topics for principal in names}
    if want.reads:
        names = readers(unit, bindings)
        found |= {Binding("group", group, "literal", principal, "read", "deny") for group in unit.groups for principal in names}
    return frozenset(found)


def flow_block(unit: Unit) -> frozenset[Binding]:
    """Return the DENY bindings that keep the replicator from writing the unit's topics: what stands for a flow that cannot be stopped."""
    return frozenset(Binding("topic", topic, "literal", name, "write", "deny") for topic in unit.topics for name in unit.replicators)


def unblockable(unit: Unit, bindings: Iterable[Binding], broker: Mapping[str, str]) -> str:
    """Return why a flow block would refuse nobody in a region with these ACLs and broker settings; empty where it would hold."""
    if not unit.replicators:
        return "principals.replicators does not say as whom MirrorMaker writes"
    supers = {name.strip() for name in broker.get("super.users", "").split(";")}
    if passing := sorted(supers.intersection(unit.replicators)):
        return f"{passing[0]} is a super user: no ACL refuses it"
    known = tuple(bindings)
    for topic in unit.topics:
        writing = {b.principal for b in known if b.permission == "allow" and b.operation in _WRITING and _covers_one(b, topic)}
        if writing.isdisjoint(unit.replicators):
            return f"none of principals.replicators ({', '.join(unit.replicators)}) may write {topic}, so MirrorMaker is somebody else"
    return ""


def blocks_writers(unit: Unit, bindings: frozenset[Binding]) -> tuple[str, ...]:
    """Return the configured writers that would be refused on some topic: no ALLOW covers it, or a DENY does.

    Computed from the ACLs alone: a probe proves only its own principal.
    """
    blocked = []
    for principal in unit.writers:
        for topic in unit.topics:
            mine = [b for b in bindings if b.principal in (principal, "User:*") and _covers_one(b, topic) and b.operation in _WRITING]
            if any(b.permission == "deny" for b in mine) or not any(b.permission == "allow" for b in mine):
                blocked.append(f"{principal} on {topic}")
    return tuple(blocked)


def lacks_readers(unit: Unit, region: Region, allowed: frozenset[Binding]) -> tuple[str, ...]:
    """Return which topics that hold the other region's records no application may read there; only the default policy has such.

    Each reader may have its own topics, but a topic that nobody may read is one whose records nobody will process.
    """
    theirs = [b for b in allowed if b.operation in _READING and b.principal not in unit.exempt]
    readable = {topic for topic in unit.copies(region) for b in theirs if _covers_one(b, topic)}
    return tuple(
        f"no ACL lets anybody read {topic} in {region}, which has {origin} of {unit.other(region)}"
        for topic, origin in zip(unit.copies(region), unit.topics, strict=False)
        if topic not in readable
    )


def _covers_one(binding: Binding, topic: str) -> bool:
    return binding.resource == "topic" and _covers(binding, (topic,))


def unsafe(
    unit: Unit, region: Region, bindings: frozenset[Binding], broker: Mapping[str, str], connector: Mapping[str, str]
) -> tuple[FindingView, ...]:
    """Return why an ACL fence would not hold in a region, with severity ``error``, and what cannot be told.

    Args:
        broker: ``super.users``, ``allow.everyone.if.no.acl.found``, ``authorizer.class.name`` of the region's brokers.
        connector: settings of the source connector of the flow out of or into the region; empty where there is none.
    """
    named = writers(unit, bindings) | readers(unit, bindings)
    supers = {name.strip() for name in broker.get("super.users", "").split(";") if name.strip()}
    found = [_finding("SUPER_USER", f"{principal} is a super user: no ACL refuses it", region) for principal in sorted(named & supers)]
    if "super.users" not in broker:
        message = "Kafka hides super.users and the configuration does not name them: if an application is one, no fence holds it"
        found.append(FindingView("SUPER_USERS_UNKNOWN", "warning", message, str(region)))
    if not broker.get("authorizer.class.name"):
        found.append(_finding("NO_AUTHORIZER", "the brokers have no authorizer: an ACL refuses nobody", region))
    if broker.get("allow.everyone.if.no.acl.found", "false") == "true":
        message = "allow.everyone.if.no.acl.found is true: the first DENY on a topic would refuse everybody else too"
        found.append(_finding("EVERYONE_ALLOWED", message, region))
    if "User:*" in named:
        found.append(_finding("WILDCARD_PRINCIPAL", "an ALLOW for User:* lets everybody write: a DENY would refuse MM2 too", region))
    if connector and connector.get("sync.topic.acls.enabled", "true") != "false":
        message = "sync.topic.acls.enabled is on: MM2 would copy the fence's DENY to the other region"
        found.append(_finding("ACL_SYNC_ON", message, region))
    return tuple(found)


def mark(binding: Binding, at_ms: int) -> Binding:
    """Return what is added in one request with a refusal to tell whose it is; it names a principal that nobody has."""
    return msgspec.structs.replace(binding, principal=f"{MARKED}{at_ms}:{binding.principal}")


def self_imposed(unit: Unit, bindings: Iterable[Binding]) -> SelfImposed:
    """Return what agents have refused on the unit's topics by themselves."""
    found: dict[Binding, tuple[int, Binding]] = {}
    for binding in bindings:
        if not binding.principal.startswith(MARKED) or binding.permission != "deny" or binding.name not in unit.topics:
            continue
        at_ms, _, principal = binding.principal.removeprefix(MARKED).partition(":")
        if at_ms.isdecimal() and principal:
            found[binding] = int(at_ms), msgspec.structs.replace(binding, principal=principal)
    since_ms = min((at_ms for at_ms, _ in found.values()), default=0)
    return SelfImposed(frozenset(found), frozenset(made for _, made in found.values()), since_ms)


def assumed(unit: Unit, absence_s: float | None) -> str:
    """Return why the agents of a region must have fenced it by themselves if any of them lives; empty where they need not.

    Args:
        absence_s: seconds for which nobody has led there; None: somebody leads, or nobody has watched.
    """
    after_s = unit.self_fence_after_s
    if after_s is None or absence_s is None or absence_s <= after_s + SELF_FENCE_MARGIN_S:
        return ""
    return f"no agent has led there for {absence_s:.1f} s, and within {after_s:g} s + {SELF_FENCE_MARGIN_S:g} s of that they refuse writes"


def _finding(code: str, message: str, region: Region) -> FindingView:
    return FindingView(code=code, severity="error", message=message, where=str(region))


def probe_would_be_appended(info: TopicInfo) -> bool:
    """Return whether a record stamped `TEN_YEARS_MS` ahead might be taken: then no probe is sent.

    Source: Kafka's LogValidator; LogAppendTime replaces the timestamp, and ``message.timestamp.after.max.ms`` bounds it.
    """
    if info.config.get("message.timestamp.type", "LogAppendTime") != "CreateTime":
        return True
    return int(info.config.get("message.timestamp.after.max.ms", TEN_YEARS_MS)) >= TEN_YEARS_MS

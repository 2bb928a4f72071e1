"""Judges of a run. They know the world and what clients saw, and nothing of the code that they judge.

What mrc wrote (the record, journals, ledgers) they read as JSON. Each promise has a code:

- ``TWO_OPEN``: two regions were open in one epoch, or an epoch fell or was passed over;
- ``LATE_ACK``: in a planned move the source acknowledged a record after the target's first acknowledgement;
- ``LOST``: an acknowledged record is neither in the active region nor in a ledger;
- ``UNEXPLAINED``: a record of which mrc says that it is accounted for is not exported once with one fate, or its fate is not true;
- ``SKIPPED``: a group has not processed a record that the active region has, or one that mrc has deleted there;
- ``STALE``: where a failback was to supersede a tail, whoever reads that log to its end finds another last record of a key than in the
  other region;
- ``STUCK``: an execution neither ended nor says what it waits for;
- ``OLD_FLOW``: under the identity policy a record was copied into a region that was open (`mrc.sim.run`);
- ``NOT_AS_RECORDED``: at rest a fence, a flow or the mirror is not what the record wants;
- ``LOOPED``: under the default policy a record was copied back to where it was written;
- ``JOURNAL``: an older term wrote after a newer one, two agents wrote in one term, entries are missing, or a resumed
  execution went on before it had proved again what had been proved;
- ``ARCHIVE``: a region's archive lacks an execution that has ended, holds it in part, or twice without need;
- ``NOT_SELF_FENCED``, ``FENCE_LEFT``: see `mrc.sim.watching`;
- ``AGENT_WRONG``: an agent found itself to be wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from mrc.core.model import Flow, GroupId, Region, TopicPartition
from mrc.sim.cluster import FakeCluster
from mrc.sim.log import PartitionLog
from mrc.sim.workload import Ack, Consumer, Observed
from mrc.sim.world import CONSUMER, PROBE, PRODUCER, World, connector, other

_ROOT = "/groups/orders"
_ARCHIVE = "mrc.executions.internal"
_SAID_MAX = 5

PROOFS = frozenset({"fence-source", "release-groups", "stop-flow"})
"""Actions whose verification expires when another agent takes over: what they saw may not hold any more."""


class Violation(msgspec.Struct, frozen=True):
    """A broken promise.

    Attributes:
        code: see the module.
        at_s: when it was found, virtual seconds.
    """

    code: str
    message: str
    at_s: float


class Opening(msgspec.Struct, frozen=True):
    """A value of the record, and when it was written."""

    order: int
    at_s: float
    region: Region
    state: str
    epoch: int
    execution: str


class Evidence:
    """What a run leaves behind for its judges.

    Attributes:
        openings: every value that the record had.
        groups: the consumer groups.
        truncated: regions that came back with shorter logs.
        destroyed: values that no region has any more because a log came back shorter.
        trimmed: values that retention took from the beginning of a log.
        holes: [region, from, until] orders between which somebody else, or an agent that woke up late, had a fence open.
        opened_s: when the last of these was made in a region.
        fences_ended: by execution, the order in which a person asked for the end of a fence.
        pauses: tells how often agents have stood still.
    """

    root = _ROOT

    def __init__(self, world: World, observed: Observed) -> None:
        self.world = world
        self.observed = observed
        self.openings: list[Opening] = []
        self.groups: tuple[GroupId, ...] = ()
        self.truncated: set[Region] = set()
        self.destroyed: set[bytes] = set()
        self.trimmed: set[bytes] = set()
        self.holes: list[list[Any]] = []
        self.opened_s: dict[Region, float] = {}
        self.fences_ended: dict[str, int] = {}
        self.pauses: Callable[[], int] = lambda: 0

    def in_hole(self, ack: Ack) -> bool:
        """Whether a record was written through such a hole."""
        order = ack.written or ack.order
        return any(region == ack.region and begin <= order <= (end or order) for region, begin, end in self.holes)

    def strays(self) -> set[bytes]:
        """Return the values that came through such holes: nobody copies, moves or reports them, and nothing is promised of them."""
        return {ack.value for ack in self.observed.acks if self.in_hole(ack)} if self.holes else set()

    def purged(self, region: Region) -> dict[bytes, tuple[TopicPartition, int]]:
        """Return the values that mrc has deleted in a region, with where they were."""
        return self.world.clusters[region].purged

    def purged_here_and_kept_there(self) -> set[bytes]:
        """Return the values that mrc has deleted in a region and the other one holds."""
        found: set[bytes] = set()
        for region in self.world.clusters:
            kept = {
                value
                for topic in self.world.partitions
                for log in self.world.clusters[other(region)].contents[topic].logs
                for value in values(log)
            }
            found |= self.purged(region).keys() & kept
        return found

    def json(self, path: str) -> Any:
        """Return what a node holds; None where there is none or it is empty."""
        node = self.world.ensemble.nodes.get(path)
        return msgspec.json.decode(node.data) if node is not None and node.data else None

    def below(self, path: str) -> list[str]:
        """Return the paths of a node's children, sorted."""
        return sorted(p for p in self.world.ensemble.nodes if p.startswith(path + "/") and "/" not in p.removeprefix(path + "/"))

    def ledgers(self) -> list[dict[str, Any]]:
        """Return the divergence ledger."""
        return [self.json(path) for path in self.below(f"{_ROOT}/ledger")]

    def reported(self, region: Region, tp: TopicPartition, offset: int, *, once: bool = False) -> bool:
        """Whether a ledger says of a record of a region that the other one lacks it; under the default policy it comes late.

        Args:
            once: also where its log was made anew since.
        """
        if self.world.policy == "default":
            # Where MirrorMaker finds a log that was cut and has grown past its position again, it knows nothing of what lies before.
            return region in self.truncated and any((one["region"], one["state"]) == (region, "open") for one in self.ledgers())
        for ledger in self.ledgers():
            if ledger["region"] == region:
                for tail in ledger["tails"]:
                    if (tail["topic"], tail["partition"]) == (tp.topic, tp.partition):
                        if ledger["state"] == "renewed" and not once:
                            found = False  # that log is gone, and what has this offset now is another record
                        elif ledger["state"] != "open":
                            found = tail["begin"] <= offset < tail["end"]
                        else:
                            # Where a region came back shorter than its mirror, what both hold is left to a person.
                            found = offset > tail["last_source"] or bool(self.truncated)
                        if found:
                            return True
        return False


def values(log: PartitionLog) -> list[bytes]:
    """Return the values of a log's visible records, in order."""
    return [value for _, value in _visible(log)]


def _visible(log: PartitionLog) -> Iterator[tuple[int, bytes]]:
    for entry in log.visible(log.start, log.end):
        if entry.record is not None and entry.record.value is not None:
            yield entry.offset, entry.record.value


def _log(world: World, region: Region, tp: TopicPartition) -> PartitionLog:
    return world.clusters[region].contents[tp.topic].logs[tp.partition]


def some(found: list[str]) -> str:
    """Return the first few, and how many more there are."""
    more = f" and {len(found) - _SAID_MAX} more" if len(found) > _SAID_MAX else ""
    return ", ".join(found[:_SAID_MAX]) + more


# ---------------------------------------------------------------- in the order of things


def order(evidence: Evidence) -> list[Violation]:
    """Judge what must hold of the order in which things happened."""
    return [*_epochs(evidence), *_late(evidence), *_journals(evidence)]


def _epochs(evidence: Evidence) -> Iterator[Violation]:
    opened: dict[int, Region] = {}
    last = 0
    for one in evidence.openings:
        if one.epoch < last or one.epoch > last + 1:
            yield Violation("TWO_OPEN", f"epoch {one.epoch} came after {last}", one.at_s)
        last = one.epoch
        if one.state == "open" and opened.setdefault(one.epoch, one.region) != one.region:
            yield Violation("TWO_OPEN", f"{opened[one.epoch]} and {one.region} were both open in epoch {one.epoch}", one.at_s)


def _late(evidence: Evidence) -> Iterator[Violation]:
    opens = [one for one in evidence.openings if one.state == "open"]
    for index in range(1, len(opens)):
        before, after = opens[index - 1], opens[index]
        until = opens[index + 1].order if index + 1 < len(opens) else float("inf")
        if before.region == after.region or _kind(evidence, after.execution) not in ("switchover", "failback"):
            continue
        first = next((a.order for a in evidence.observed.acks if a.region == after.region and a.order > after.order), None)
        if first is None:
            continue
        late = [a for a in evidence.observed.acks if a.region == before.region and first < a.order < until and not evidence.in_hole(a)]
        if late:
            said = some([f"{a.value.decode()} at {a.at_s:.2f} s" for a in late])
            yield Violation(
                "LATE_ACK", f"{before.region} acknowledged after {after.region} had in epoch {after.epoch}: {said}", late[0].at_s
            )


def _kind(evidence: Evidence, execution: str) -> str:
    plan = evidence.json(f"{_ROOT}/executions/{execution}")
    return str(plan["kind"]) if plan else ""


def _journals(evidence: Evidence) -> Iterator[Violation]:
    holders: dict[tuple[str, int], str] = {}
    for path in evidence.below(f"{_ROOT}/executions"):
        # Terms of the two regions are unlike numbers; an execution is undone from its source at most once, at its end.
        last: dict[str, int] = {}
        events: list[dict[str, Any]] = []
        for number, entry_path in enumerate(evidence.below(f"{path}/entries")):
            entry = evidence.json(entry_path)
            region = str(entry["agent"]).partition("-")[0]
            if entry["number"] != number:
                yield Violation("JOURNAL", f"{entry_path} holds entry {entry['number']}", 0.0)
            if entry["term"] < last.get(region, 0):
                yield Violation("JOURNAL", f"term {entry['term']} wrote {entry_path} after term {last[region]}", 0.0)
            last[region] = entry["term"]
            events.append(entry["event"])
            holder = holders.setdefault((region, entry["term"]), entry["agent"])
            if holder != entry["agent"]:
                yield Violation("JOURNAL", f"{holder} and {entry['agent']} both wrote in term {entry['term']}", 0.0)
                return
        if unproved := _unproved(evidence.json(path)["steps"], events):
            yield Violation("JOURNAL", f"{path} was resumed and went on with {unproved} was proved again", 0.0)


def _unproved(steps: list[dict[str, Any]], events: list[dict[str, Any]]) -> str:
    """Return a step that was gone on with after a resume before every earlier proof was proved again; empty where none was."""
    proofs = {step["name"] for step in steps if step["action"] in PROOFS}
    opens = {step["name"] for step in steps if step["action"] == "open-target"}
    # What a person has let open again need not be proved closed.
    reopens = {step["name"] for step in steps if step["action"] == "reopen-source"}
    proved: set[str] = set()
    again: set[str] = set()
    for event in events:
        kind, step = event["type"], event.get("step", "")
        if kind == "abort-asked" or (kind == "verified" and step in opens) or step in reopens:
            return ""
        if kind in ("did", "verified") and again and step not in proved:
            return f"{step} before {', '.join(sorted(again))}"
        if kind == "resumed":
            again = set(proved)
        elif kind in ("verified", "skipped"):
            again.discard(step)
            if kind == "verified" and step in proofs:
                proved.add(step)
    return ""


# ---------------------------------------------------------------- at rest


def executions(evidence: Evidence, waits_for: str, at_s: float) -> list[Violation]:
    """Judge that the running execution, if there is one, says what it waits for."""
    node = evidence.world.ensemble.nodes.get(f"{_ROOT}/current")
    if node is None or not node.data or waits_for:
        return []
    return [Violation("STUCK", f"execution {node.data.decode()} neither ended nor says what it waits for", at_s)]


def at_rest(evidence: Evidence, consumers: list[Consumer], at_s: float) -> list[Violation]:
    """Judge what must hold when nothing moves any more."""
    record = evidence.json(f"{_ROOT}/record")
    active = Region(record["region"])
    if record["state"] != "open":
        return []
    present = {tp: values(_log(evidence.world, active, tp)) for tp in evidence.world.read_tps(active)}
    all_present = {value for found in present.values() for value in found}
    found = [
        *_lost(evidence, all_present),
        *_unexplained(evidence),
        *_stale(evidence),
        *_skipped(evidence, active, consumers),
        *_as_recorded(evidence, active),
        *_archives(evidence),
        *_looped(evidence.world),
    ]
    return [msgspec.structs.replace(one, at_s=at_s) for one in found]


def _lost(evidence: Evidence, present: set[bytes]) -> Iterator[Violation]:
    gone = present | evidence.trimmed | evidence.destroyed | evidence.purged_here_and_kept_there()
    lost = [a for a in evidence.observed.acks if a.value not in gone and not evidence.reported(a.region, a.tp, a.offset, once=True)]
    if lost := [a for a in lost if not evidence.in_hole(a)]:
        yield Violation(
            "LOST",
            f"{len(lost)} acknowledged: " + some([f"{a.value.decode()} ({a.region} {a.tp}@{a.offset}, {a.at_s:.2f} s)" for a in lost]),
            0.0,
        )


def _unexplained(evidence: Evidence) -> Iterator[Violation]:
    """Judge what mrc says of divergent records by the logs: what was acknowledged, what was exported, what stands in the topic again."""
    for ledger in evidence.ledgers():
        if not ledger.get("accounts"):
            continue
        there = evidence.world.clusters[Region(ledger["target"])]
        fates = _fates(there, ledger["id"])
        exported, again = _recovered(there, "mrc.recovered.", ledger["id"]), _recovered(there, "", ledger["id"])
        wrong = []
        for tail in ledger["tails"]:
            tp = TopicPartition(tail["topic"], tail["partition"])
            for ack in evidence.observed.acks:
                if (ack.region, ack.tp) != (ledger["region"], tp) or not tail["begin"] <= ack.offset < tail["end"]:
                    continue
                place = (tp.topic, tp.partition, ack.offset)
                copies, fate, written = exported.get(place, []), fates.get(place, {}), again.get(place, [])
                if ack.value in evidence.destroyed or (ack.value in evidence.trimmed and not copies):
                    continue
                if copies != [ack.value] or not fate or written != ([ack.value] if fate["fate"] == "emitted" else []):
                    wrong.append(
                        f"{ack.value.decode()} ({tp}@{ack.offset}): exported {len(copies)} times, {fate}, written {len(written)} times"
                    )
        if wrong:
            yield Violation("UNEXPLAINED", f"{ledger['id']}: {len(wrong)}: {some(wrong)}", 0.0)


def _fates(cluster: FakeCluster, ledger: str) -> dict[tuple[str, int, int], dict[str, Any]]:
    found: dict[tuple[str, int, int], dict[str, Any]] = {}
    for entry in cluster.contents["mrc.divergence.internal"].logs[0].visible(0, 1 << 62):
        record = entry.record
        if record is not None and record.key is not None and record.value is not None:
            key = msgspec.json.decode(record.key)
            if key[:2] == ["fate", ledger]:
                found[key[2], key[3], key[4]] = msgspec.json.decode(record.value)
    return found


def _recovered(cluster: FakeCluster, prefix: str, ledger: str) -> dict[tuple[str, int, int], list[bytes]]:
    """Return the values of the records that say that they were recovered, by where they came from, in topics with a prefix, or in none."""
    found: dict[tuple[str, int, int], list[bytes]] = {}
    for name, topic in cluster.contents.items():
        if name.startswith("mrc.") != bool(prefix) or not name.startswith(prefix):
            continue
        for log in topic.logs:
            for entry in log.visible(log.start, log.end):
                said = [value for header, value in (entry.record.headers if entry.record else ()) if header == "mrc-recovered" and value]
                origin = msgspec.json.decode(said[-1]) if said else {}
                if origin.get("failover") == ledger and entry.record is not None:
                    place = (origin["topic"], origin["partition"], origin["offset"])
                    found.setdefault(place, []).append(entry.record.value or b"")
    return found


def _skipped(evidence: Evidence, active: Region, consumers: list[Consumer]) -> Iterator[Violation]:
    strays = evidence.strays()
    for consumer in consumers:
        # What retention took from one region before a group had read it, the group has passed when it comes home.
        skipped, known = [], consumer.processed | strays | evidence.trimmed
        for tp in evidence.world.read_tps(active):
            log = _log(evidence.world, active, tp)
            for offset, value in _visible(log):
                if value not in known and not evidence.reported(active, tp, offset):
                    skipped.append(f"{value.decode()} ({tp}@{offset})")
        for region in evidence.world.clusters:
            for value, (tp, offset) in evidence.purged(region).items():
                if value not in known and not evidence.reported(region, tp, offset, once=True):
                    skipped.append(f"{value.decode()} ({tp}@{offset} of {region}, deleted)")
        if skipped:
            yield Violation("SKIPPED", f"{consumer.group} in {active}: {len(skipped)}: {some(skipped)}", 0.0)


def _stale(evidence: Evidence) -> Iterator[Violation]:
    """Judge what the last failback has written behind tails of compacted topics, where nothing has diverged or was deleted since."""
    moved = [path for path in evidence.below(f"{_ROOT}/executions") if evidence.json(path)["kind"] in ("failover", "failback")]
    plan = evidence.json(moved[-1]) if moved else {"kind": ""}
    if plan["kind"] != "failback" or evidence.trimmed or evidence.destroyed or evidence.strays():
        return
    events = [evidence.json(entry)["event"] for entry in evidence.below(f"{moved[-1]}/entries")]
    if not any(event["type"] == "verified" and event.get("step") == "settle-old-log" for event in events):
        return
    home = Region(plan["target"])
    wrong: list[str] = []
    for ledger in evidence.ledgers():
        for tail in ledger["tails"] if (ledger["region"], ledger["state"]) == (home, "listed") else ():
            tp = TopicPartition(tail["topic"], tail["partition"])
            if evidence.world.recovery.old_log_of(tp.topic) == "supersede":
                log = _log(evidence.world, home, tp)
                here, there = _last(log), _last(_log(evidence.world, other(home), tp))
                keys = {
                    entry.record.key for entry in log.visible(tail["begin"], tail["end"]) if entry.record is not None and entry.record.key
                }
                wrong += [f"{key!r} of {tp}: {here[key]!r}, {there.get(key)!r}" for key in sorted(keys) if here[key] != there.get(key)]
    if wrong:
        yield Violation("STALE", f"{home} and {other(home)} differ in {len(wrong)} keys: {some(wrong)}", 0.0)


def _last(log: PartitionLog) -> dict[bytes, bytes | None]:
    """Return the last value of each key."""
    return {
        entry.record.key: entry.record.value for entry in log.visible(log.start, log.end) if entry.record is not None and entry.record.key
    }


def missing_denies(world: World, region: Region) -> list[str]:
    """Return the refusals that a region which is not open must have and has not."""
    cluster = world.clusters[region]
    wanted = {("topic", topic, principal, "write") for topic in world.partitions for principal in (PRODUCER, PROBE)}
    wanted |= {("group", group, CONSUMER, "read") for group in world.groups}
    return sorted(" ".join(one) for one in wanted - _denies(cluster.acls.bindings))


def _denies(bindings: Any) -> set[tuple[str, str, str, str]]:
    return {(b.resource, b.name, b.principal, b.operation) for b in bindings if b.permission == "deny"}


def _as_recorded(evidence: Evidence, active: Region) -> Iterator[Violation]:
    world, standby = evidence.world, other(active)
    if ours := _denies(world.clusters[active].acls.bindings):
        yield Violation("NOT_AS_RECORDED", f"{active} is open and still refuses: {some(sorted(map(' '.join, ours)))}", 0.0)
    if missing := missing_denies(world, standby):
        yield Violation("NOT_AS_RECORDED", f"{standby} does not refuse: {some(missing)}", 0.0)
    if world.policy == "default":
        yield from _copied(evidence, standby)
        yield from _copied(evidence, active)
        return
    back = world.replicators[active].status(connector(Flow(standby, active)))
    if back.state != "STOPPED":
        yield Violation("NOT_AS_RECORDED", f"the flow out of the standby is {back.state}", 0.0)
    shaken = bool(evidence.truncated or evidence.strays())
    if shaken and any(one["region"] == standby and one["state"] == "open" for one in evidence.ledgers()):
        # A region came back shorter than its mirror, or somebody else wrote into a mirror: the two logs do not tell where the tail
        # begins, and nobody may copy until a person has decided.
        return
    yield from _copied(evidence, active)


def _copied(evidence: Evidence, active: Region) -> Iterator[Violation]:
    """Judge the flow out of a region."""
    world, standby = evidence.world, other(active)
    there = world.replicators[standby].status(connector(Flow(active, standby)))
    if there.state != "RUNNING" or not all(task == "RUNNING" for task in there.tasks):
        yield Violation("NOT_AS_RECORDED", f"the flow into {standby} is {there.state} {there.trace}", 0.0)
        return
    lacks = []
    for tp in world.tps():
        mirror = set(values(_log(world, standby, world.mirror(active, tp)))) | evidence.trimmed | evidence.strays()
        mirror |= evidence.purged(standby).keys()
        lacks += [
            f"{value.decode()} ({tp})"
            for offset, value in _visible(_log(world, active, tp))
            if value not in mirror and not evidence.reported(active, tp, offset)
        ]
    if lacks:
        yield Violation("NOT_AS_RECORDED", f"{standby} lacks {len(lacks)} records of {active}: {some(lacks)}", 0.0)


def _looped(world: World) -> Iterator[Violation]:
    """Judge that no region has a copy of what was written in it."""
    for region in world.clusters if world.policy == "default" else ():
        for tp in world.tps():
            copy = world.mirror(other(region), tp)
            back = set(values(_log(world, region, tp))) & set(values(_log(world, region, copy)))
            if back:
                yield Violation("LOOPED", f"{region} has {len(back)} records of {tp} in {copy}: {some(sorted(map(str, back)))}", 0.0)


def _archives(evidence: Evidence) -> Iterator[Violation]:
    """Judge the regions' archives. An agent that stood still right before it wrote may have written once more what another one had."""
    current = evidence.world.ensemble.nodes.get(f"{_ROOT}/current")
    running = current.data.decode() if current is not None else ""
    ended = [path for path in evidence.below(f"{_ROOT}/executions") if path != f"{_ROOT}/executions/{running}"]
    for region, cluster in evidence.world.clusters.items():
        if not cluster.reachable:
            continue
        kept = _kept(cluster.contents[_ARCHIVE].logs if _ARCHIVE in cluster.contents else ())
        for path in ended:
            found = kept.pop("orders/" + path.rpartition("/")[2], [])
            if not found:
                yield Violation("ARCHIVE", f"{region} has not archived {path}", 0.0)
                continue
            whole = {"plan": evidence.json(path), "entries": [evidence.json(entry) for entry in evidence.below(f"{path}/entries")]}
            one = msgspec.json.decode(found[-1])
            if {key: one[key] for key in whole} != whole:
                yield Violation("ARCHIVE", f"{region} has archived {path} as something else: {len(one['entries'])} entries", 0.0)
            if len(set(found)) > 1 or len(found) > 1 + evidence.pauses():
                yield Violation("ARCHIVE", f"{region} has archived {path} {len(found)} times, {len(set(found))} of them unlike", 0.0)
        if kept:
            yield Violation("ARCHIVE", f"{region} has archived what has not ended: {some(sorted(kept))}", 0.0)


def _kept(logs: Iterable[PartitionLog]) -> dict[str, list[bytes]]:
    """Return what a topic's records hold by their keys, in order."""
    found: dict[str, list[bytes]] = {}
    for log in logs:
        for entry in log.visible(log.start, log.end):
            if entry.record is not None and entry.record.key is not None and entry.record.value is not None:
                found.setdefault(entry.record.key.decode(), []).append(entry.record.value)
    return found

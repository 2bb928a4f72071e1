"""The adoption of a running MirrorMaker 2 estate, and the way out of mrc: what has to be done, as values. Nothing is done here.

The unit's topics are copied by one connector when mrc begins. Where it copies more than the unit, it is *split*: a connector of
the unit's own takes over from the very positions at which the old one stopped, and the old one leaves the unit's topics out by
``topics.exclude``, which works on lists and on patterns. No configuration is kept in ZooKeeper, for it may hold passwords: what mrc changes
in a connector is a few keys, and only these are noted, as they were.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal

from mrc.core.errors import MrcError
from mrc.core.failover import fence
from mrc.core.failover.flows import by_partition
from mrc.core.inventory import Binding, FlowStatus, GroupInfo, TopicInfo, Unit
from mrc.core.model import Epoch, Flow, GroupId, Offset, Region, TopicPartition, Value, Written, target_topic
from mrc.core.views import FindingView

EXCLUDE_DEFAULT = r".*[\-\.]internal,.*\.replica,__.*"
"""What MM2 leaves out where a connector has no ``topics.exclude`` (DefaultTopicFilter; 4.0 leaves out less)."""

_EXCLUDE, _ACL_SYNC = "topics.exclude", "sync.topic.acls.enabled"
_HEARTBEATS = "heartbeats.replication.enabled"

State = Literal["begun", "stopped", "set", "opened", "adopted", "leaving", "drained", "returned", "left"]
"""How far it is: each state is written when what it says is so, and before the act that relies on it.

In: the old connector has ended and its positions are known (*stopped*), the unit's own is at them (*set*), the record is written
(*opened*), the fence stands (*adopted*). Out: the record is gone (*leaving*), the unit's own connector has ended (*drained*), the old
one is at its positions with its topics again (*returned*), nothing is left to do (*left*).
"""


class Addresses(Value, frozen=True):
    """Where a cluster is reached: from its own region, and from the other one."""

    local: str
    remote: str


class Seen(Value, frozen=True):
    """What one region shows of an estate.

    Attributes:
        connectors: configuration of every connector in the region's Connect.
        status: of those among them that copy records.
        groups: the unit's consumer groups.
    """

    bootstrap: str
    topic_names: tuple[str, ...]
    topics: Mapping[str, TopicInfo]
    groups: Mapping[GroupId, GroupInfo]
    bindings: frozenset[Binding]
    broker_settings: Mapping[str, str]
    connectors: Mapping[str, Mapping[str, str]]
    status: Mapping[str, FlowStatus]


class Adoption(Written, frozen=True):
    """How an estate came to mrc: one ZooKeeper node per replication group, from which both ways are gone on with after a kill.

    Attributes:
        active: the region that was open first.
        epoch: of the opening that the adoption writes.
        connector: copies the unit from the active region to the other.
        old: the connector that copied the unit before and more besides; empty: ``connector`` did, and is kept.
        ran: whether that one was running.
        before: what the keys that mrc changes had in it; None: nothing.
        reverse: the connector that mrc made for the way back; empty: it was there.
        positions: next source offset to copy when the old connector had ended, per topic, index = partition.
        unproved: partitions whose last copy was not found at that position in the source.
        stopped_at_ms: when the old connector was stopped; 0: not yet.
        paused_ms: for how long nothing copied the unit; -1: not known yet.
        keeps: on the way out, connectors stay as they are.
    """

    active: Region
    epoch: Epoch
    connector: str
    old: str
    ran: bool
    before: dict[str, str | None]
    reverse: str
    state: State
    positions: dict[str, tuple[Offset, ...]] = {}
    unproved: tuple[str, ...] = ()
    stopped_at_ms: int = 0
    paused_ms: int = -1
    keeps: bool = False
    version: Literal[1] = 1

    def offsets(self) -> dict[TopicPartition, Offset]:
        """Return `positions` by partition."""
        return by_partition(self.positions)


class AdoptionPlan(Value, frozen=True):
    """What an adoption would do, an act a line, and what stands against it. ``adoption`` is None where an error does."""

    acts: tuple[str, ...]
    findings: tuple[FindingView, ...]
    adoption: Adoption | None


# ---------------------------------------------------------------- connectors


def sources(connectors: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """Return the connectors that copy records (MirrorSourceConnector)."""
    return {
        name: dict(config) for name, config in connectors.items() if config.get("connector.class", "").endswith("MirrorSourceConnector")
    }


def _patterns(text: str) -> list[re.Pattern[str]]:
    """Return the names and patterns between commas. Raises ``ADOPTION_REFUSED`` for one that only Java understands."""
    try:
        return [re.compile(part.strip()) for part in text.split(",") if part.strip()]
    except re.error as error:
        raise MrcError("ADOPTION_REFUSED", f"cannot tell what the pattern matches: {error}", where=text) from None


def covered(config: Mapping[str, str], topics: Iterable[str]) -> set[str]:
    """Return those of ``topics`` that a source connector copies by its settings (MM2's DefaultTopicFilter).

    Internal topics are never copied, whatever the settings say. Heartbeats are left out: every connector may copy them beside.
    """
    wanted, unwanted = _patterns(config.get("topics", ".*")), _patterns(config.get(_EXCLUDE, EXCLUDE_DEFAULT))
    return {
        topic
        for topic in topics
        if not topic.startswith(("__", ".")) and not topic.endswith((".internal", "-internal", "heartbeats"))
        if any(one.fullmatch(topic) for one in wanted) and not any(one.fullmatch(topic) for one in unwanted)
    }


def _literal(topics: Iterable[str]) -> str:
    # The only character of topic names that means something in a pattern is the dot.
    return ",".join(topic.replace(".", r"\.") for topic in topics)


def split_off(config: Mapping[str, str], unit: Unit, connector: str) -> dict[str, str]:
    """Return the settings of the unit's own connector, made from those of the one that copies its topics and more.

    Heartbeats stay with the old connector: two that copy them would copy each twice.
    """
    kept = {key: value for key, value in config.items() if key != _EXCLUDE}
    return {**kept, "name": connector, "topics": _literal(unit.topics), _HEARTBEATS: "false", _ACL_SYNC: "false"}


def narrowed(config: Mapping[str, str], unit: Unit) -> dict[str, str]:
    """Return the settings of the old connector without the unit's topics. Idempotent."""
    present = [part for part in config.get(_EXCLUDE, EXCLUDE_DEFAULT).split(",") if part]
    return {**config, _EXCLUDE: ",".join([*present, *(one for one in _literal(unit.topics).split(",") if one not in present)])}


def widened(config: Mapping[str, str], unit: Unit, before: Mapping[str, str | None]) -> dict[str, str]:
    """Return the settings of the old connector with the unit's topics again; what others left out meanwhile stays out. Idempotent."""
    ours = set(_literal(unit.topics).split(",")) - set((before.get(_EXCLUDE) or "").split(","))
    left = ",".join(part for part in config.get(_EXCLUDE, EXCLUDE_DEFAULT).split(",") if part not in ours)
    if before.get(_EXCLUDE) is None and left == EXCLUDE_DEFAULT:
        return {key: value for key, value in config.items() if key != _EXCLUDE}
    return {**config, _EXCLUDE: left}


def tamed(config: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of a connector that is kept: it must not carry one region's fence into the other."""
    return {**config, _ACL_SYNC: "false"}


def untamed(config: Mapping[str, str], before: Mapping[str, str | None]) -> dict[str, str]:
    """Return them as they were."""
    rest = {key: value for key, value in config.items() if key not in before}
    return rest | {key: value for key, value in before.items() if value is not None}


def reversed_settings(
    config: Mapping[str, str], unit: Unit, connector: str, addresses: Mapping[Region, Addresses], flow: Flow
) -> dict[str, str]:
    """Return the settings of the connector for the way back: both ends exchanged, each reached as the other Connect reaches it.

    Args:
        config: of the unit's connector for the way there.
        flow: the way back.
    """
    ends = {"source.cluster.": "target.cluster.", "target.cluster.": "source.cluster."}
    turned = {}
    for key, value in config.items():
        end = next((one for one in ends if key.startswith(one)), "")
        turned[ends[end] + key.removeprefix(end) if end else key] = value
    return {
        **split_off(turned, unit, connector),
        "source.cluster.bootstrap.servers": addresses[flow.source].remote,
        "target.cluster.bootstrap.servers": addresses[flow.target].local,
    }


# ---------------------------------------------------------------- who else manages it


def managed_by_others(region: Region, seen: Seen) -> tuple[FindingView, ...]:
    """Return what betrays that somebody else than mrc would have the last word on a region's flows.

    Sources: Strimzi's operator names connectors ``<source>-><target>.MirrorSourceConnector`` and undoes what REST changes; MM2's
    dedicated mode keeps ``mm2-configs.<source>.internal`` (MirrorMakerConfig) and has no REST; the names of MSK are AWS's.
    """
    found: list[FindingView] = []
    for name, config in sources(seen.connectors).items():
        texts = " ".join(config.values())
        if "->" in name and name.endswith(".MirrorSourceConnector"):
            sign = f"connector {name} is named as Strimzi's operator names those of a KafkaMirrorMaker2 resource"
        elif any(sign in texts for sign in _STRIMZI_FILES):
            sign = f"the settings of connector {name} name files of Strimzi's containers (a guess: no resource was read)"
        else:
            continue
        found.append(
            _error("MANAGED_BY_OTHERS", f"{sign}: the operator undoes what others change in its connectors. {_STRIMZI}", str(region))
        )
    dedicated = [name for name in seen.topic_names if re.fullmatch(r"mm2-(configs|offsets|status)\..+\.internal", name)]
    if dedicated and not sources(seen.connectors):
        found.append(_error("MANAGED_BY_OTHERS", f"topic {dedicated[0]} belongs to MM2's dedicated mode. {DEDICATED}", str(region)))
    elif dedicated:
        message = f"topic {dedicated[0]} is of MM2's dedicated mode (a guess by its name): no connect-mirror-maker.sh may run any more"
        found.append(FindingView("MANAGED_BY_OTHERS", "warning", message, str(region)))
    if any("__strimzi" in name for name in seen.topic_names):
        message = (
            "Strimzi's topic operator keeps a topic here (a guess by the name): settings of topics are its resources'; mrc changes none"
        )
        found.append(FindingView("MANAGED_BY_OTHERS", "warning", message, str(region)))
    found += _msk(region, seen)
    return tuple(found)


def _msk(region: Region, seen: Seen) -> Iterable[FindingView]:
    if not re.search(r"\.kafka(-serverless)?\.[a-z0-9-]+\.amazonaws\.com(\.cn)?\b", seen.bootstrap):
        return
    if ".kafka-serverless." in seen.bootstrap:
        yield _error("MANAGED_BY_OTHERS", "MSK Serverless knows IAM only, and no ACL: a fence would refuse nobody there", str(region))
    if not sources(seen.connectors):
        yield _error(
            "MANAGED_BY_OTHERS",
            f"the brokers are MSK's, and no MirrorSourceConnector is in Connect: if MSK Replicator copies, {_MSK}",
            str(region),
        )
        return
    message = "the brokers are MSK's: clients that log in by IAM pass every ACL, and so every fence; they must use SCRAM or TLS"
    yield FindingView("MANAGED_BY_OTHERS", "warning", message, str(region))


_STRIMZI_FILES = ("${strimzi", "/strimzi-connect", "/opt/kafka/mm2-certs", "/opt/kafka/mm2-password")
_STRIMZI = (
    "What works: set the resource's spec.mirrors to STOPPED or remove it, keep its Connect (KafkaConnect without "
    "strimzi.io/use-connector-resources), and make the connectors through REST under other names"
)
DEDICATED = (
    "It has no REST that stops connectors or tells positions. What works: distributed Connect workers on the target cluster with the "
    "same connectors, set to the positions of the dedicated mode's offsets topic, and connect-mirror-maker.sh ended for good"
)
_MSK = "it offers nobody its positions and cannot be stopped at one. What works: MirrorMaker 2 on Connect workers of your own"


# ---------------------------------------------------------------- the plan


def plan(unit: Unit, active: Region, seen: Mapping[Region, Seen], epoch: Epoch) -> AdoptionPlan:
    """Return what makes a running estate mrc's, with ``active`` open. Pure: a second look that is the same gives the same plan."""
    flow = Flow(active, unit.other(active))
    standby = seen[flow.target]
    found = [finding for region in unit.regions for finding in managed_by_others(region, seen[region])]
    copying = {name: config for name, config in sources(standby.connectors).items() if _from(config, flow) and covered(config, unit.topics)}
    name = unit.connectors[flow]
    found += _copying(unit, flow, copying)
    found += _other_writers(unit, flow, standby)
    found += _places(unit, flow, seen)
    if any(finding.severity == "error" for finding in found):
        return AdoptionPlan((), tuple(found), None)
    old, config = next(iter(copying.items()))
    more = covered(config, seen[flow.source].topic_names) - set(unit.topics) - _copies(unit, flow, seen)
    split = bool(more) or old != name
    if old == name and more:
        message = (
            f"{old} copies {_some(more)} besides: name another connector for {flow}, such as mrc.{unit.name}.{flow.source}-{flow.target}"
        )
        return AdoptionPlan((), (*found, _error("ADOPTION_REFUSED", message, old)), None)
    if split and name in standby.connectors:
        message = f"there is a connector {name} already, and {old} copies {unit.name}: delete {name}, or name another one for {flow}"
        return AdoptionPlan((), (*found, _error("ADOPTION_REFUSED", message, name)), None)
    if standby.status[old].state not in ("RUNNING", "STOPPED"):
        message = f"{old} is {standby.status[old].state}: let it run, or stop it, first"
        return AdoptionPlan((), (*found, _error("ADOPTION_REFUSED", message, old)), None)
    back = flow.reversed
    reverse = unit.connectors[back]
    adoption = Adoption(
        active=active,
        epoch=epoch,
        connector=name,
        old=old if split else "",
        ran=standby.status[old].state == "RUNNING",
        before={_EXCLUDE: config.get(_EXCLUDE)} if split else {_ACL_SYNC: config.get(_ACL_SYNC)},
        reverse=reverse if reverse not in seen[back.target].connectors else "",
        state="begun",
    )
    return AdoptionPlan(tuple(_acts(unit, flow, adoption, config, more)), tuple(found), adoption)


def _from(config: Mapping[str, str], flow: Flow) -> bool:
    return config.get("source.cluster.alias") == flow.source


def _copies(unit: Unit, flow: Flow, seen: Mapping[Region, Seen]) -> set[str]:
    """Return topics of the source that came from the target: MM2 never copies them back under the default policy."""
    return {topic for topic in seen[flow.source].topic_names if unit.policy == "default" and topic.startswith(f"{flow.target}.")}


def _copying(unit: Unit, flow: Flow, copying: Mapping[str, Mapping[str, str]]) -> Iterable[FindingView]:
    where = str(flow)
    if not copying:
        message = (
            f"no MirrorSourceConnector with source.cluster.alias {flow.source} in Connect of {flow.target} copies {_some(unit.topics)}"
        )
        yield _error("ADOPTION_REFUSED", f"{message}; mrc adopts what runs: make one, let it copy, and come again", where)
        return
    if len(copying) > 1:
        yield _error("ADOPTION_REFUSED", f"{', '.join(sorted(copying))} all copy topics of {unit.name}: leave them to one", where)
        return
    name, config = next(iter(copying.items()))
    lacking = set(unit.topics) - covered(config, unit.topics)
    if lacking:
        yield _error(
            "ADOPTION_REFUSED", f"{name} does not copy {_some(lacking)}: add them to its topics, or take them out of {unit.name}", name
        )
    if "topic.filter.class" in config:
        yield _error("ADOPTION_REFUSED", f"{name} has a topic.filter.class of its own: mrc cannot tell which topics it copies", name)
    if "producer.override.bootstrap.servers" in config:
        message = f"{name} writes elsewhere than into its Connect's own cluster: run it in the Connect of {flow.target}"
        yield _error("ADOPTION_REFUSED", message, name)
    wanted = unit.policy == "identity"
    if config.get("replication.policy.class", "").endswith("IdentityReplicationPolicy") != wanted:
        yield _error("ADOPTION_REFUSED", f"{name} has another replication policy than {unit.name}, which says {unit.policy}", name)


def _other_writers(unit: Unit, flow: Flow, standby: Seen) -> Iterable[FindingView]:
    """Say who else commits positions in the standby: two writers would overwrite one another."""
    for name, config in standby.connectors.items():
        if not config.get("connector.class", "").endswith("MirrorCheckpointConnector") or not _from(config, flow):
            continue
        if config.get("sync.group.offsets.enabled") != "true":
            continue
        wanted, unwanted = _patterns(config.get("groups", ".*")), _patterns(config.get("groups.exclude", ""))
        both = [g for g in unit.groups if any(p.fullmatch(g) for p in wanted) and not any(p.fullmatch(g) for p in unwanted)]
        if both:
            message = (
                f"{name} has sync.group.offsets.enabled and commits for {_some(both)} too: turn it off, or add them to its groups.exclude"
            )
            yield _error("ADOPTION_REFUSED", message, name)


def _places(unit: Unit, flow: Flow, seen: Mapping[Region, Seen]) -> Iterable[FindingView]:
    source, standby = seen[flow.source], seen[flow.target]
    for topic in unit.topics:
        copy = target_topic(unit.policy, flow.source, topic)
        here, there = source.topics.get(topic), standby.topics.get(copy)
        for name, info, region in ((topic, here, flow.source), (copy, there, flow.target)):
            if info is None:
                yield _error(
                    "UNKNOWN_TOPIC", f"topic {name} does not exist in {region}; MirrorMaker makes copies when it first copies", str(region)
                )
        if here is not None and there is not None and len(here.leaders) != len(there.leaders):
            yield _error(
                "ADOPTION_REFUSED", f"{topic} has {len(here.leaders)} partitions in {flow.source} and {len(there.leaders)} in {flow.target}"
            )
    back = sources(seen[flow.source].connectors)
    reverse = unit.connectors[flow.reversed]
    for name, config in back.items():
        runs = source.status[name].state != "STOPPED"
        if unit.policy == "identity" and runs and _from(config, flow.reversed) and covered(config, unit.topics):
            yield _error(
                "ADOPTION_REFUSED", f"{name} copies the same topics back: under the identity policy both together loop; stop it", name
            )
    if reverse in back and covered(back[reverse], seen[flow.target].topic_names) - set(unit.topics) - _copies(unit, flow.reversed, seen):
        yield _error("ADOPTION_REFUSED", f"{reverse} copies more than {unit.name}: name another connector for {flow.reversed}", reverse)
    for region in unit.regions:
        yield from fence.unsafe(unit, region, seen[region].bindings, seen[region].broker_settings, {})
    for group, state in standby.groups.items():
        if state.members:
            message = f"group {group} has {state.members} members in {flow.target}: the fence refuses them to read there"
            yield FindingView("GROUP_HAS_MEMBERS", "warning", message, str(flow.target))
    if not unit.probe:
        message = f"without a probe the fence of {flow.target} stays unverified, and no switchover can be proved"
        yield FindingView("PROBE_MISSING", "warning", message, unit.name)


def _acts(unit: Unit, flow: Flow, adoption: Adoption, config: Mapping[str, str], more: Iterable[str]) -> Iterable[str]:
    name, old = adoption.connector, adoption.old
    if old:
        yield f"stop {old} in {flow.target} and note where it ended; from here nothing copies its topics, for seconds"
        yield (
            f"leave {_some(unit.topics)} out of {old} ({_EXCLUDE}); it keeps {_some(more)}"
            if more
            else f"leave {_some(unit.topics)} out of {old} ({_EXCLUDE})"
        )
        yield f"resume {old}" if adoption.ran else f"leave {old} stopped, as it was"
        yield f"make {name}, STOPPED, with the settings of {old} and the topics {_some(unit.topics)}"
        yield f"set {name} to where {old} ended, read it back, resume it: the pause ends here"
    elif config.get(_ACL_SYNC, "true") != "false":
        yield f"keep {name}; set its {_ACL_SYNC} to false, for it would copy the fence"
    else:
        yield f"keep {name} as it is"
    if adoption.reverse:
        yield f"make {adoption.reverse} in {flow.source}, STOPPED, for the way back"
    yield f"write the first active-region record: {flow.source} open, epoch {adoption.epoch}"
    yield f"fence {flow.target}: refuse {_some(unit.writers)} to write and {_some(unit.readers)} to read"


def _some(names: Iterable[str], most: int = 5) -> str:
    listed = sorted(names)
    rest = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + rest if listed else "nobody"


def _error(code: str, message: str, where: str = "") -> FindingView:
    return FindingView(code, "error", message, where)

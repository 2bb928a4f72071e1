"""What must hold between the fields of `mrc.yaml`; each finding names the key that would have to change.

Runs on a file whose shape is right already. Reads no network; of files it looks only whether they can be opened.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from mrc.config import routing
from mrc.config.located import Key, did_you_mean
from mrc.config.settings import FlowSettings, RegionSettings, ReplicationGroup, SecuritySettings, Settings

Finding = tuple[Key, str]


def findings(settings: Settings) -> Iterator[Finding]:
    """Yield a key and a message for everything that does not hold."""
    yield from _addresses(("zookeeper", "connect"), settings.zookeeper.connect)
    for name, region in settings.regions.items():
        yield from _region(("regions", name), region, tls=settings.grpc.tls is not None)
    yield from _agents(settings)
    yield from _unused(settings)
    if settings.grpc.tls is not None:
        for field in ("cert_file", "key_file", "ca_file"):
            yield from _readable(("grpc", "tls", field), getattr(settings.grpc.tls, field))
    for index, group in enumerate(settings.replication_groups):
        yield from _replication_group(("replication_groups", index), group, settings)
    yield from _across_groups(settings)


def _region(key: Key, region: RegionSettings, *, tls: bool) -> Iterator[Finding]:
    yield from _addresses((*key, "kafka", "bootstrap"), region.kafka.bootstrap)
    if region.kafka.bootstrap_remote is not None:
        yield from _addresses((*key, "kafka", "bootstrap_remote"), region.kafka.bootstrap_remote)
    yield from _security((*key, "kafka", "security"), region.kafka.security)
    yield from _url((*key, "connect", "url"), region.connect.url)
    for index, agent in enumerate(region.agents):
        yield from _address((*key, "agents", index, "metrics"), agent.metrics)
        at = (*key, "agents", index, "grpc")
        bad = list(_address(at, agent.grpc))
        yield from bad
        if not bad and not tls and not _is_loopback(agent.grpc):
            yield at, f"{agent.grpc} is not loopback, and there is no grpc.tls: anybody could move the unit"


def _security(key: Key, security: SecuritySettings) -> Iterator[Finding]:
    sasl = security.protocol.startswith("SASL_")
    for field in ("mechanism", "username", "password_file"):
        given = getattr(security, field) is not None
        if sasl and not given:
            yield (*key, field), f"missing; {security.protocol} needs it"
        if given and not sasl:
            yield (*key, field), f"{security.protocol} has no use for it; allowed with SASL_PLAINTEXT, SASL_SSL"
    if security.ca_file is not None and not security.protocol.endswith("SSL"):
        yield (*key, "ca_file"), f"{security.protocol} has no use for it; allowed with SSL, SASL_SSL"
    for field in ("password_file", "ca_file"):
        path = getattr(security, field)
        if path is not None:
            yield from _readable((*key, field), path)


def _agents(settings: Settings) -> Iterator[Finding]:
    ids: list[tuple[Key, str]] = []
    addresses: list[tuple[Key, str]] = []
    for name, region in settings.regions.items():
        for index, agent in enumerate(region.agents):
            key = ("regions", name, "agents", index)
            ids.append(((*key, "id"), agent.id))
            addresses += [((*key, "grpc"), agent.grpc), ((*key, "metrics"), agent.metrics)]
    yield from _unique(ids, "agent id")
    yield from _unique(addresses, "address")


def _unused(settings: Settings) -> Iterator[Finding]:
    named = {end for group in settings.replication_groups for flow in group.flows for end in (flow.source, flow.target)}
    for name in settings.regions:
        if name not in named:
            yield (
                ("regions", name),
                f"no flow begins or ends in {name}, so nothing could move to it; allowed: two regions per replication group",
            )


def _replication_group(key: Key, group: ReplicationGroup, settings: Settings) -> Iterator[Finding]:
    if group.mode == "active-active" and group.policy == "identity":
        yield (*key, "policy"), "identity under mode active-active would loop: both flows copy the same names for ever; allowed: default"
    for index, topic in enumerate(group.topics):
        if topic.endswith(".internal"):
            yield (*key, "topics", index), f"{topic}: MirrorMaker 2 never copies topics whose names end in .internal"
        origin, _, name = topic.partition(".")
        if group.policy == "default" and name in group.topics and origin in settings.regions:
            yield (
                (*key, "topics", index),
                f"{topic} is MirrorMaker's copy of {name} of {origin}; list {name} alone: both are read and moved",
            )
    yield from _unique([((*key, "groups", index), name) for index, name in enumerate(group.groups)], "consumer group")
    yield from _flows((*key, "flows"), group, settings)
    yield from _principals((*key, "principals"), group)
    if group.probe is not None:
        yield from _readable((*key, "probe", "password_file"), group.probe.password_file)
        if (probe := f"User:{group.probe.username}") in group.principals.exempt:
            yield (*key, "probe", "username"), f"{probe} is exempt too: no fence would refuse it, and so it could prove none"
        elif probe in group.principals.replicators:
            yield (*key, "probe", "username"), f"{probe} is the replicator too: no fence would refuse it, and so it could prove none"
    yield from _self_fence(key, group, settings)
    yield from _divergence((*key, "divergence"), group)
    if group.routing is not None:
        regions = tuple(dict.fromkeys(end for flow in group.flows for end in (flow.source, flow.target)))
        yield from routing.findings((*key, "routing"), group.routing, regions)
    if group.runbooks is not None and not group.runbooks.is_dir():
        yield (*key, "runbooks"), f"there is no folder {group.runbooks}"
    if group.rules is not None:
        if group.mode != "active-active":
            yield (*key, "rules"), f"{group.mode} has one region that is written, so nothing is in conflict; allowed with: active-active"
        yield from _readable((*key, "rules"), group.rules)


def _flows(key: Key, group: ReplicationGroup, settings: Settings) -> Iterator[Finding]:
    directions = {(flow.source, flow.target) for flow in group.flows}
    for index, flow in enumerate(group.flows):
        at = (*key, index)
        yield from _ends(at, flow, settings)
        if flow.source != flow.target and (flow.target, flow.source) not in directions:
            yield at, f"{flow.source}->{flow.target} has no flow {flow.target}->{flow.source} beside it, so nothing could move back"
    yield from _third(key, group, settings)
    yield from _unique([((*key, index), f"{flow.source}->{flow.target}") for index, flow in enumerate(group.flows)], "flow")


def _ends(key: Key, flow: FlowSettings, settings: Settings) -> Iterator[Finding]:
    for end in ("source", "target"):
        name = getattr(flow, end)
        if name not in settings.regions:
            allowed = ", ".join(settings.regions)
            yield (*key, end), f"there is no region {name}{did_you_mean(name, settings.regions)}; allowed: {allowed}"
    if flow.source == flow.target:
        yield (*key, "target"), "source and target are the same region"


def _divergence(key: Key, group: ReplicationGroup) -> Iterator[Finding]:
    wanted = group.divergence
    for at, policy in ((("resolve",), wanted.resolve), *((("topics", name), one) for name, one in wanted.topics.items())):
        if policy == "conflict_rules":
            yield (*key, *at), "conflict_rules is not available: this version has no conflict rules; allowed: quarantine, append, untouched"
    for field, named in (("topics", wanted.topics), ("old_logs", wanted.old_logs)):
        for name in named:
            if name not in group.topics:
                yield (*key, field, name), f"{name} is no topic of {group.name}{did_you_mean(name, group.topics)}"


def _self_fence(key: Key, group: ReplicationGroup, settings: Settings) -> Iterator[Finding]:
    session_s = settings.zookeeper.session_timeout_ms / 1000
    if group.on_quorum_loss == "keep":
        return
    if group.mode != "active-passive":
        yield (*key, "on_quorum_loss"), f"{group.mode} has no one open region that others could take for fenced; allowed: keep"
    if group.self_fence_after_s <= session_s:
        message = f"{group.self_fence_after_s:g} is not more than the session time-out, {session_s:g} s, in which the lead may change hands"
        yield (*key, "self_fence_after_s"), message


def _third(key: Key, group: ReplicationGroup, settings: Settings) -> Iterator[Finding]:
    """Yield each region, where it is named first, that is one too many for a unit that moves between two."""
    ends = [((*key, index, end), getattr(flow, end)) for index, flow in enumerate(group.flows) for end in ("source", "target")]
    first = {name: at for at, name in reversed(ends) if name in settings.regions}
    regions = [name for name in dict.fromkeys(name for _, name in ends) if name in first]
    for name in regions[2:]:
        yield first[name], f"{name} is one region too many: {group.name} moves between two, here {regions[0]} and {regions[1]}"


def _principals(key: Key, group: ReplicationGroup) -> Iterator[Finding]:
    exempt = set(group.principals.exempt)
    for role in ("writers", "readers"):
        for index, principal in enumerate(getattr(group.principals, role)):
            if principal in exempt:
                yield (*key, role, index), f"{principal} is exempt too; a principal is either fenced or exempt"
            if principal in group.principals.replicators:
                yield (*key, role, index), f"{principal} is the replicator too; a fence that refused it would stop the way home"
            if principal.endswith(":*"):
                yield (*key, role, index), f"{principal} would fence the replicator and mrc too; name the applications' principals"


def _across_groups(settings: Settings) -> Iterator[Finding]:
    groups = list(enumerate(settings.replication_groups))
    top = "replication_groups"
    yield from _unique([((top, number, "name"), group.name) for number, group in groups], "replication group")
    yield from _unique(
        [((top, number, "topics", index), topic) for number, group in groups for index, topic in enumerate(group.topics)],
        "topic",
    )
    yield from _spanning(settings)
    yield from _unique(
        [
            ((top, number, "flows", index, "connector"), flow.connector)
            for number, group in groups
            for index, flow in enumerate(group.flows)
        ],
        "connector",
    )


def _spanning(settings: Settings) -> Iterator[Finding]:
    """A consumer group moves as a whole: one that reads topics of two replication groups would be moved by half."""
    home: dict[str, str] = {}
    for number, group in enumerate(settings.replication_groups):
        for index, name in enumerate(group.groups):
            first = home.setdefault(name, group.name)
            if first != group.name:
                key = ("replication_groups", number, "groups", index)
                yield key, f"consumer group {name} belongs to {first} already; one that reads topics of both moves with both: make them one"


def _unique(named: Iterable[tuple[Key, str]], noun: str) -> Iterator[Finding]:
    seen: set[str] = set()
    for key, name in named:
        if name in seen:
            yield key, f"{noun} {name} is there twice"
        seen.add(name)


def _addresses(key: Key, text: str) -> Iterator[Finding]:
    for one in text.split(","):
        yield from _address(key, one.strip())


def _address(key: Key, text: str) -> Iterator[Finding]:
    host, port = _split(text)
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65_536:
        yield key, f"{text!r} is not host:port with a port from 1 to 65535"


def _split(text: str) -> tuple[str, str]:
    host, _, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        return host[1:-1], port
    return ("" if ":" in host or "/" in host else host), port


def _is_loopback(text: str) -> bool:
    host, _ = _split(text)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _url(key: Key, text: str) -> Iterator[Finding]:
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        yield key, f"{text!r} is not an http:// or https:// address"


def _readable(key: Key, path: Path) -> Iterator[Finding]:
    try:
        with path.open("rb"):
            return
    except OSError as error:
        yield key, f"{path} cannot be read: {error.strerror}"

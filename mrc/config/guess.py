"""A first `mrc.yaml` guessed from what an existing Kafka and Connect show. Values in, text and notes out.

Refuses to be clever: whatever cannot be seen is written with a plain default and a note that says so, and every guess
is noted, so that its reader checks each one before an agent runs with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import permutations
from typing import Literal

import yaml

from mrc.core.inventory import Binding
from mrc.core.model import Policy, Value

_FIRST_PORT = 7001
_JAAS_USERNAME = re.compile(r"""username\s*=\s*["']?([^"'\s;]+)""")
_NOT_OURS = re.compile(r"^(__|mm2-|connect-|mrc\.)|\.internal$|(^|\.)heartbeats$")
_ADMINISTRATORS = frozenset({"alter", "all"})


Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]


class Login(Value, frozen=True):
    """How mrc logs in, as it is to be written; the password's file, never the password."""

    protocol: Protocol = "PLAINTEXT"
    mechanism: str | None = None
    username: str | None = None
    password_file: str | None = None
    ca_file: str | None = None

    def written(self) -> dict[str, str]:
        """Return the fields that are there, in the file's order."""
        fields = {name: getattr(self, name) for name in self.__struct_fields__}
        return {name: value for name, value in fields.items() if value is not None}


class SeenRegion(Value, frozen=True):
    """What a region's Kafka and Connect showed.

    Attributes:
        bootstrap: of its Kafka.
        connect_url: of its Connect.
        topics: every topic's name.
        groups: the topics that each consumer group has positions on.
        bindings: ACLs; None where they could not be listed.
        mirrors: configuration of each MirrorSourceConnector in its Connect, by name.
    """

    bootstrap: str
    connect_url: str
    topics: tuple[str, ...]
    groups: Mapping[str, frozenset[str]]
    bindings: frozenset[Binding] | None
    mirrors: Mapping[str, Mapping[str, str]]


class Guess(Value, frozen=True):
    """The text of a configuration file, and what in it was guessed, a sentence each."""

    text: str
    notes: tuple[str, ...]


class _Mirror(Value, frozen=True):
    """A MirrorSourceConnector with its ends."""

    name: str
    source: str
    target: str
    config: Mapping[str, str]

    @property
    def policy(self) -> Policy:
        return "identity" if self.config.get("replication.policy.class", "").endswith("IdentityReplicationPolicy") else "default"

    @property
    def topics(self) -> str:
        return self.config.get("topics", ".*")


def guess(seen: Mapping[str, SeenRegion], login: Login, zookeeper: str) -> Guess:
    """Return a configuration for these regions: one replication group per list of topics that MirrorMaker 2 copies."""
    notes = [
        "The agents' ids and addresses are made up.",
        "The probe is left out: without its user and password file no fence can be proved.",
    ]
    sets: dict[str, list[_Mirror]] = {}
    for mirror in _mirrors(seen, notes):
        sets.setdefault(mirror.topics, []).append(mirror)
    if not sets:
        notes.append("No MirrorSourceConnector was found: the replication group is made up.")
        first, second, *_ = seen
        sets[".*"] = [_Mirror("", first, second, {"replication.policy.class": "IdentityReplicationPolicy"})]
    names = ["main"] if len(sets) == 1 else [f"group-{number}" for number in range(1, len(sets) + 1)]
    groups = [_replication_group(name, mirrors, seen, login, notes) for name, mirrors in zip(names, sets.values(), strict=True)]
    data = {
        "version": 1,
        "zookeeper": {"connect": zookeeper},
        "regions": {name: _region(name, region, login, index) for index, (name, region) in enumerate(seen.items())},
        "replication_groups": groups,
    }
    head = "".join(f"# {note}\n" for note in ("Guessed by `mrc config init`. Check before use:", *notes))
    return Guess(head + yaml.safe_dump(data, sort_keys=False, width=120), tuple(notes))


def _mirrors(seen: Mapping[str, SeenRegion], notes: list[str]) -> Iterable[_Mirror]:
    for target, region in seen.items():
        for name, config in sorted(region.mirrors.items()):
            alias = config.get("source.cluster.alias", "")
            others = [other for other in seen if other != target]
            source = alias if alias in others else others[0]
            if source != alias:
                notes.append(f"{name}: its source.cluster.alias {alias!r} is no region's name here; {source} was taken.")
            yield _Mirror(name, source, target, config)


def _region(name: str, region: SeenRegion, login: Login, index: int) -> dict[str, object]:
    port = _FIRST_PORT + 10 * index
    agents = [
        {"id": f"{name}-{letter}", "grpc": f"127.0.0.1:{port + place}", "metrics": f"127.0.0.1:{port + 100 + place}"}
        for place, letter in enumerate("ab")
    ]
    return {
        "kafka": {"bootstrap": region.bootstrap, "security": login.written()},
        "connect": {"url": region.connect_url},
        "agents": agents,
    }


def _replication_group(
    name: str, mirrors: Sequence[_Mirror], seen: Mapping[str, SeenRegion], login: Login, notes: list[str]
) -> dict[str, object]:
    topics = sorted({topic for mirror in mirrors for topic in _copied(mirror, seen[mirror.source].topics, seen)})
    if not topics:
        notes.append(f"{name}: no topic matches what MirrorMaker 2 copies; name at least one.")
    groups = sorted(
        {
            group
            for region in seen.values()
            for group, on in region.groups.items()
            if not _NOT_OURS.search(group) and not on.isdisjoint(topics)
        }
    )
    policies = {mirror.policy for mirror in mirrors}
    if len(policies) > 1:
        notes.append(f"{name}: its connectors have different replication policies; {mirrors[0].policy} was taken.")
    notes.append(f"{name}: the mode is taken to be active-passive.")
    return {
        "name": name,
        "mode": "active-passive",
        "policy": mirrors[0].policy,
        "topics": topics,
        "groups": groups,
        "principals": _principals(name, topics, groups, mirrors, seen, login, notes),
        "flows": _flows(name, mirrors, notes),
    }


def _copied(mirror: _Mirror, topics: Iterable[str], seen: Mapping[str, SeenRegion]) -> Iterable[str]:
    """Yield what the connector copies by its ``topics``: names and regular expressions with commas between."""
    patterns = [re.compile(pattern.strip()) for pattern in mirror.topics.split(",") if pattern.strip()]
    came_from_elsewhere = tuple(f"{region}." for region in seen) if mirror.policy == "default" else ()
    for topic in topics:
        if _NOT_OURS.search(topic) or topic.startswith(came_from_elsewhere):
            continue
        if any(pattern.fullmatch(topic) for pattern in patterns):
            yield topic


def _flows(name: str, mirrors: Sequence[_Mirror], notes: list[str]) -> list[dict[str, str]]:
    by_direction = {(mirror.source, mirror.target): mirror.name for mirror in reversed(mirrors)}
    ends = {end for direction in by_direction for end in direction}
    flows = []
    for source, target in permutations(sorted(ends), 2):
        connector = by_direction.get((source, target), "")
        if not connector:
            connector = f"mrc.{name}.{source}-{target}"
            notes.append(f"{name}: no connector copies {source}->{target}; make {connector}, STOPPED under the identity policy.")
        flows.append({"source": source, "target": target, "connector": connector})
    return flows


def _principals(
    name: str,
    topics: Sequence[str],
    groups: Sequence[str],
    mirrors: Sequence[_Mirror],
    seen: Mapping[str, SeenRegion],
    login: Login,
    notes: list[str],
) -> dict[str, list[str]]:
    bindings = [binding for region in seen.values() for binding in region.bindings or ()]
    if any(region.bindings is None for region in seen.values()):
        notes.append(f"{name}: not every region's ACLs could be listed, so principals may be missing.")
    replicators = _replicators(mirrors)
    exempt = {binding.principal for binding in bindings if _administers(binding)} - replicators
    if login.username is not None:
        exempt.add(f"User:{login.username}")
    writers = {binding.principal for binding in bindings if _allows(binding, "write", "topic", topics)}
    readers = {
        binding.principal for binding in bindings if _allows(binding, "read", "group", groups) or _allows(binding, "read", "topic", topics)
    }
    notes.append(
        f"{name}: who is never fenced was taken from administrators' ACLs, the connectors' user and mrc's own: check it above all."
    )
    never = exempt | replicators
    return {
        "writers": sorted(writers - never),
        "readers": sorted(readers - never),
        "exempt": sorted(exempt),
        "replicators": sorted(replicators),
    }


def _replicators(mirrors: Iterable[_Mirror]) -> set[str]:
    texts = (value for mirror in mirrors for key, value in mirror.config.items() if key.endswith("sasl.jaas.config"))
    return {f"User:{found[1]}" for text in texts if (found := _JAAS_USERNAME.search(text))}


def _administers(binding: Binding) -> bool:
    return binding.permission == "allow" and binding.resource == "cluster" and binding.operation in _ADMINISTRATORS


def _allows(binding: Binding, operation: str, resource: str, names: Iterable[str]) -> bool:
    if binding.permission != "allow" or binding.resource != resource or binding.operation not in (operation, "all"):
        return False
    if binding.principal.endswith(":*"):
        return False
    if binding.pattern == "prefixed":
        return any(name.startswith(binding.name) for name in names)
    return binding.name == "*" or binding.name in names

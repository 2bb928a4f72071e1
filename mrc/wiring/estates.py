"""Builds what an agent reaches from the settings: adapters, units, estates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mrc.adapters.clock import SystemClock
from mrc.adapters.kafka.access import Access
from mrc.adapters.kafka.cluster import KafkaCluster
from mrc.adapters.mirrormaker.connect import ConnectReplicator
from mrc.adapters.routing.command import CommandHook
from mrc.adapters.routing.dns import DnsRoute
from mrc.adapters.routing.haproxy import HaproxyRoute
from mrc.adapters.routing.own import CommandRoute
from mrc.adapters.zookeeper.tree import ZooKeeperTree
from mrc.agent.estate import Estate
from mrc.agent.leadership import AgentNode, Leadership
from mrc.agent.store import Store
from mrc.config.routing import DnsSettings, RoutingSettings
from mrc.config.runbook import load_runbook
from mrc.config.settings import AgentSettings, KafkaSettings, ReplicationGroup, Settings
from mrc.core.errors import MrcError
from mrc.core.failover.runbook import Runbook
from mrc.core.inventory import Recovery, Unit
from mrc.core.model import GroupId, Region
from mrc.ports import CALL_DEADLINE_S, Hook, Route

BESIDE_S = 1.0
"""How long an agent without ZooKeeper waits for those beside it."""

ROUTE_COMMAND_S = 10.0
"""How long a command that redirects clients may take where it is read back: one that ends late is mended by the next leader."""

SHIPPED_RUNBOOKS = Path(__file__).resolve().parents[1] / "runbooks"
"""Where the wheel keeps them; in a checkout they are in the folder above."""


@dataclass
class Reach:
    """Everything that an agent has connections to; closed as one."""

    tree: ZooKeeperTree
    clusters: dict[str, dict[Region, KafkaCluster]]
    estates: dict[str, Estate]
    leadership: Leadership
    peers: dict[Region, Leadership]

    def close(self) -> None:
        """Release every connection."""
        for clusters in self.clusters.values():
            for cluster in clusters.values():
                cluster.close()
        self.tree.close()


def access(kafka: KafkaSettings, *, remote: bool) -> Access:
    """Return how mrc reaches a cluster, from inside its region or from another."""
    security = kafka.security
    return Access(
        bootstrap=kafka.remote if remote else kafka.bootstrap,
        protocol=security.protocol,
        mechanism=security.mechanism or "",
        username=security.username or "",
        password=security.password().reveal() if security.password_file else "",
        ca_file=str(security.ca_file or ""),
    )


def unit(group: ReplicationGroup) -> Unit:
    """Return a replication group as the core needs it."""
    regions = tuple(dict.fromkeys(Region(region) for flow in group.flows for region in (flow.source, flow.target)))
    return Unit(
        name=group.name,
        mode=group.mode,
        policy=group.policy,
        regions=regions,
        topics=tuple(group.topics),
        groups=tuple(GroupId(name) for name in group.groups),
        writers=tuple(group.principals.writers),
        readers=tuple(group.principals.readers),
        exempt=(*group.principals.exempt, *group.principals.replicators),
        replicators=tuple(group.principals.replicators),
        probe=f"User:{group.probe.username}" if group.probe else "",
        connectors={flow.flow: flow.connector for flow in group.flows},
        live_sync=tuple(group.live_sync),
        rpo_s=group.objectives.rpo_s,
        rto_s=group.objectives.rto_s,
        self_fence_after_s=group.self_fence_after_s if group.on_quorum_loss == "fence" else None,
        recovery=Recovery(
            resolve=group.divergence.resolve,
            topics=dict(group.divergence.topics),
            old_log=group.divergence.old_log,
            records_per_second=group.divergence.records_per_second,
            old_logs=dict(group.divergence.old_logs),
        ),
        carries_producers=group.routing is not None and group.routing.producers == "unknown",
    )


def routes(routing: RoutingSettings | None, regions: Sequence[Region], hook: Hook) -> tuple[Route, ...]:
    """Return what sends clients to a region and can be read back."""
    if routing is None:
        return ()
    found: list[Route] = []
    if routing.command is not None and routing.read_back is not None:
        found.append(CommandRoute(hook, routing.command, routing.read_back, regions, ROUTE_COMMAND_S))
    found += [_dns(name) for name in routing.dns]
    found += [HaproxyRoute(one.address, one.backend, _by_region(one.servers), CALL_DEADLINE_S) for one in routing.haproxy]
    return tuple(found)


def _dns(name: DnsSettings) -> DnsRoute:
    def key() -> tuple[str, str, str]:
        found = name.key()
        return found.name, found.algorithm, found.secret.reveal()

    return DnsRoute(name.address, name.zone, name.name, name.type, name.ttl_s, _by_region(name.values), key, CALL_DEADLINE_S)


def _by_region(values: Mapping[str, tuple[str, ...]]) -> dict[Region, tuple[str, ...]]:
    return {Region(name): one for name, one in values.items()}


def cluster(settings: Settings, group: ReplicationGroup, region: Region, *, here: Region | None) -> KafkaCluster:
    """Return one region's cluster, as reached from region ``here`` (None: from outside of all)."""
    kafka = settings.region(region).kafka
    way = access(kafka, remote=here != region)
    probe = way.as_principal(group.probe.username, group.probe.password().reveal()) if group.probe else None
    return KafkaCluster(region, way, probe, CALL_DEADLINE_S)


def reach(settings: Settings, region: Region, agent: AgentSettings, version: str) -> Reach:
    """Return an agent's connections. None is made before it is needed, but ZooKeeper's."""
    zookeeper = settings.zookeeper
    tree = ZooKeeperTree(zookeeper.connect, zookeeper.root, zookeeper.session_timeout_ms, CALL_DEADLINE_S)
    me = AgentNode(agent.id, agent.grpc, version)
    peers = {Region(name): Leadership(tree, Region(name), me) for name in settings.regions}
    leadership = peers[region]
    clusters: dict[str, dict[Region, KafkaCluster]] = {}
    estates: dict[str, Estate] = {}
    for group in settings.replication_groups:
        one = unit(group)
        if region not in one.regions:
            continue
        clusters[one.name] = {name: cluster(settings, group, name, here=region) for name in one.regions}
        estates[one.name] = Estate(
            unit=one,
            region=region,
            clusters=clusters[one.name],
            replicators={name: ConnectReplicator(settings.region(name).connect.url, CALL_DEADLINE_S) for name in one.regions},
            store=Store(tree, one.name),
            leadership=leadership,
            clock=SystemClock(),
            hook=CommandHook(settings.base),
            route=(group.routing.command or ()) if group.routing and group.routing.read_back is None else (),
            routes=routes(group.routing, one.regions, CommandHook(settings.base)),
            together=together,
            led_beside=partial(led_beside, settings, region, agent),
            super_users={name: settings.region(name).kafka.super_users for name in one.regions},
        )
    return Reach(tree, clusters, estates, leadership, peers)


def together(jobs: Sequence[Callable[[], None]]) -> None:
    """Do the jobs in threads, and return when all have ended. Raises the failure that comes first in their order."""
    with ThreadPoolExecutor(max_workers=len(jobs), thread_name_prefix="together") as pool:
        begun = [pool.submit(job) for job in jobs]
    for one in begun:
        one.result(timeout=0)


def led_beside(settings: Settings, region: Region, me: AgentSettings) -> bool:
    """Ask the region's other agents whether one of them leads; silence, within `BESIDE_S`, means no."""
    from mrc.control.client import Client  # noqa: PLC0415 - gRPC's client is needed in no other case

    with Client(settings, user=me.id) as client:
        beside = [one for one in client.agents if one.region == region and one.agent != me.id]
        answers = client.ask_all("Version", deadline_s=BESIDE_S, agents=beside)
    return any(answer.error is None and answer.view.leads for answer in answers)


def runbook_folder(settings: Settings, replication_group: str) -> Path:
    """Return where a replication group's runbooks are."""
    group = settings.replication_group(replication_group)
    if group.runbooks is not None:
        return group.runbooks
    return SHIPPED_RUNBOOKS if SHIPPED_RUNBOOKS.is_dir() else SHIPPED_RUNBOOKS.parents[1] / "runbooks"


def runbook(settings: Settings, replication_group: str, kind: str) -> tuple[Runbook, str]:
    """Return the runbook of a kind of move, read now, with its hash.

    Raises:
        MrcError: ``RUNBOOK_INVALID`` naming file and line.
    """
    path = runbook_folder(settings, replication_group) / f"{kind}.yaml"
    if not path.is_file():
        raise MrcError("RUNBOOK_INVALID", f"there is no runbook {kind}", where=str(path))
    return load_runbook(path)

"""Reaches an estate from outside, without agents, for its adoption and for the way out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from mrc import __version__
from mrc.adapters.clock import SystemClock
from mrc.adapters.mirrormaker.connect import ConnectReplicator
from mrc.adapters.routing.command import CommandHook
from mrc.adapters.zookeeper.tree import ZooKeeperTree
from mrc.agent.estate import Estate
from mrc.agent.leadership import AgentNode, Leadership
from mrc.agent.store import Store
from mrc.config.settings import ReplicationGroup, Settings
from mrc.core.errors import MrcError
from mrc.core.failover.adoption import Addresses
from mrc.core.model import Region
from mrc.ports import CALL_DEADLINE_S
from mrc.wiring.estates import cluster, unit

CONNECT_DEADLINE_S = 20.0
"""Connect answers late while it rebalances, and it does so whenever a connector is made or configured."""


@dataclass(frozen=True)
class Outside:
    """An estate with what only its configuration tells.

    Attributes:
        addresses: where each region's Kafka is, from inside and from the other region.
        last: no other replication group of the configuration is mrc's.
    """

    estate: Estate
    addresses: Mapping[Region, Addresses]
    last: bool


@contextmanager
def opened(settings: Settings, group: ReplicationGroup, region: str) -> Iterator[Outside]:
    """Give a replication group's estate as seen from ``region``, and close its connections in the end. Raises ``UNKNOWN_REGION``."""
    of = unit(group)
    if region not in of.regions:
        raise MrcError("UNKNOWN_REGION", f"no region {region!r} in {group.name}; there are: {', '.join(of.regions)}")
    zookeeper = settings.zookeeper
    tree = ZooKeeperTree(zookeeper.connect, zookeeper.root, zookeeper.session_timeout_ms, CALL_DEADLINE_S)
    clusters = {name: cluster(settings, group, name, here=None) for name in of.regions}
    try:
        estate = Estate(
            unit=of,
            region=Region(region),
            clusters=clusters,
            replicators={name: ConnectReplicator(settings.region(name).connect.url, CONNECT_DEADLINE_S) for name in of.regions},
            store=Store(tree, of.name),
            leadership=Leadership(tree, Region(region), AgentNode("init", "", __version__)),
            clock=SystemClock(),
            hook=CommandHook(settings.base),
            super_users={name: settings.region(name).kafka.super_users for name in of.regions},
        )
        kafkas = {name: settings.region(name).kafka for name in of.regions}
        addresses = {name: Addresses(kafka.bootstrap, kafka.remote) for name, kafka in kafkas.items()}
        others = [one.name for one in settings.replication_groups if one.name != of.name]
        yield Outside(estate, addresses, last=all(Store(tree, name).record() is None for name in others))
    finally:
        for one in clusters.values():
            one.close()
        tree.close()

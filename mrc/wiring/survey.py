"""One look at an existing region, for a first configuration: its topics, groups, ACLs and MirrorSourceConnectors. Changes nothing."""

from __future__ import annotations

from pathlib import Path

from mrc.adapters.kafka import Access, KafkaCluster
from mrc.adapters.mirrormaker import ConnectReplicator
from mrc.config.guess import Login, SeenRegion
from mrc.core.errors import MrcError
from mrc.core.failover.adoption import sources
from mrc.ports import Binding


def survey(region: str, bootstrap: str, connect_url: str, login: Login, deadline_s: float) -> SeenRegion:
    """Return what the region shows. One call per consumer group; each call ends within ``deadline_s``.

    Raises:
        MrcError: Kafka or Connect did not answer, or refused the login.
    """
    cluster = KafkaCluster(region, _access(bootstrap, login), None, deadline_s)
    try:
        # First, for a refused password is said here and looks like silence when topics are listed.
        groups = cluster.group_ids()
        return SeenRegion(
            bootstrap=bootstrap,
            connect_url=connect_url,
            topics=tuple(cluster.topic_names()),
            groups={group: frozenset(tp.topic for tp in cluster.positions(group)) for group in groups},
            bindings=_bindings(cluster),
            mirrors=sources(ConnectReplicator(connect_url, deadline_s).configurations()),
        )
    finally:
        cluster.close()


def _access(bootstrap: str, login: Login) -> Access:
    password = "" if login.password_file is None else Path(login.password_file).read_text(encoding="utf-8").rstrip("\r\n")
    return Access(
        bootstrap=bootstrap,
        protocol=login.protocol,
        mechanism=login.mechanism or "",
        username=login.username or "",
        password=password,
        ca_file=login.ca_file or "",
    )


def _bindings(cluster: KafkaCluster) -> frozenset[Binding] | None:
    """Return the ACLs, or None where there is no authorizer or mrc may not list them."""
    try:
        return cluster.bindings()
    except MrcError as error:
        if error.code in {"UNSAFE_TO_FENCE", "AUTHORIZATION_FAILED"}:
            return None
        raise

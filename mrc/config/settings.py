"""`mrc.yaml` as values: what an operator writes about regions, replication groups and addresses.

Owns the shape of the file and what its fields mean; `mrc.config.consistency` owns what must hold between them.
Refuses unknown keys. Invariant: a `Settings` that `mrc.config.load` returned is consistent, its paths are absolute,
and it holds no password: passwords are read from their files when they are asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from mrc.config.routing import RoutingSettings as RoutingSettings
from mrc.config.secret import Secret as Secret
from mrc.config.secret import read_secret
from mrc.core.errors import MrcError
from mrc.core.failover.divergence import OldLogPolicy, ResolvePolicy
from mrc.core.model import Flow, Mode, Policy, Region, Written
from mrc.ports import CALL_DEADLINE_S, LEASE_SHARE, RENEW_EVERY_S

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")]
"""A region's, replication group's or agent's name: no dots, for topic and connector names are made of it."""

NonEmpty = Annotated[str, Meta(min_length=1)]
PrincipalName = Annotated[str, Meta(pattern=r"^[A-Za-z]+:.+$")]
TopicName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,249}$")]


SESSION_TIMEOUT_MS_MIN = round((CALL_DEADLINE_S + RENEW_EVERY_S) / LEASE_SHARE * 1000)


class ZooKeeperSettings(Written, frozen=True):
    """The ensemble that all regions share, best with a server at a third site.

    Attributes:
        connect: host:port of each server, with commas.
        root: the node below which everything of mrc is.
        session_timeout_ms: how long a silent agent keeps its leadership; long enough that no call outlasts the lease.
    """

    connect: NonEmpty
    root: Annotated[str, Meta(pattern=r"^(/[A-Za-z0-9_-]+)+$")] = "/mrc"
    session_timeout_ms: Annotated[
        int,
        Meta(
            ge=SESSION_TIMEOUT_MS_MIN,
            le=60_000,
            description=f"a leader's lease, {LEASE_SHARE:.2g} of it, has to outlast a call to ZooKeeper, Kafka or Connect"
            f" ({CALL_DEADLINE_S:g} s) and the time between two renewals ({RENEW_EVERY_S:g} s)",
        ),
    ] = 4_000


class SecuritySettings(Written, frozen=True):
    """How mrc itself logs in at a Kafka cluster.

    Attributes:
        protocol: the listener's.
        mechanism: the SASL mechanism; with SASL protocols only.
        username: mrc's own user; with SASL protocols only.
        password_file: a file with its password alone; with SASL protocols only.
        ca_file: certificates that the brokers' are checked against; the system's where left out.
    """

    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    username: str | None = None
    password_file: Path | None = None
    ca_file: Path | None = None

    def password(self) -> Secret:
        """Return the password, read from its file now. Raises ``CONFIG_INVALID`` where there is none."""
        if self.password_file is None:
            raise MrcError("CONFIG_INVALID", f"{self.protocol} has no password_file")
        return read_secret(self.password_file)


class KafkaSettings(Written, frozen=True):
    """A region's Kafka cluster.

    Attributes:
        bootstrap: host:port of some brokers, with commas.
        bootstrap_remote: how other regions reach it; `remote` falls back to `bootstrap`.
        security: how mrc logs in.
        super_users: what the brokers' ``super.users`` says; Kafka tells nobody, and a fence does not hold super users.
    """

    bootstrap: NonEmpty
    bootstrap_remote: NonEmpty | None = None
    security: SecuritySettings = SecuritySettings()
    super_users: tuple[PrincipalName, ...] | None = None

    @property
    def remote(self) -> str:
        """The address for other regions."""
        return self.bootstrap_remote or self.bootstrap


class ConnectSettings(Written, frozen=True):
    """A region's Connect cluster, which runs the flows *into* the region.

    Attributes:
        url: of one worker's REST interface.
    """

    url: NonEmpty


class AgentSettings(Written, frozen=True):
    """One agent of a region's pair.

    Attributes:
        id: unique among all regions.
        grpc: host:port that it serves the API on; loopback unless TLS is configured.
        metrics: host:port that it serves Prometheus metrics on.
    """

    id: Name
    grpc: NonEmpty
    metrics: NonEmpty


class RegionSettings(Written, frozen=True):
    """A place with one Kafka cluster, one Connect cluster and its agents."""

    kafka: KafkaSettings
    connect: ConnectSettings
    agents: Annotated[tuple[AgentSettings, ...], Meta(min_length=1)]


class Principals(Written, frozen=True):
    """Whom a fence refuses, and whom never.

    Attributes:
        writers: lose WRITE in a fenced region; those found in ALLOW ACLs are added.
        readers: lose READ in a region that was left; those found in ALLOW ACLs are added.
        exempt: never fenced: mrc itself, administrators.
        replicators: as whom MirrorMaker writes; never fenced, but refused by a flow block.
    """

    writers: tuple[PrincipalName, ...] = ()
    readers: tuple[PrincipalName, ...] = ()
    exempt: tuple[PrincipalName, ...] = ()
    replicators: tuple[PrincipalName, ...] = ()


class ProbeSettings(Written, frozen=True):
    """The user that proves fences: it may write as the applications do, is fenced with them, and appends nothing."""

    username: NonEmpty
    password_file: Path

    def password(self) -> Secret:
        """Return the password, read from its file now. Raises ``CONFIG_INVALID``."""
        return read_secret(self.password_file)


class FlowSettings(Written, frozen=True):
    """Replication source -> target and the name of its MirrorSourceConnector.

    MM2's checkpoint and heartbeat connectors carry the same name with ``.checkpoint`` and ``.heartbeat`` behind it.
    """

    source: Name
    target: Name
    connector: NonEmpty

    @property
    def flow(self) -> Flow:
        """Source and target as one value."""
        return Flow(Region(self.source), Region(self.target))


class Objectives(Written, frozen=True):
    """What a move may cost; more is a warning, and refuses nothing.

    Attributes:
        rpo_s: seconds of records that a failover may lose: the lag of the flow that runs.
        rto_s: seconds that a move may take from its beginning to its end.
    """

    rpo_s: Annotated[float, Meta(gt=0)] = 5.0
    rto_s: Annotated[float, Meta(gt=0)] = 15.0


class DivergenceSettings(Written, frozen=True):
    """What becomes, at a failback, of records that a failover left behind in the old region.

    Attributes:
        resolve: what to do with them once they are exported: leave them in the recovered topic, write all of them again, or those whose
            key was not written since.
        topics: the same for single topics.
        old_log: what to do with the log that they lie in: leave it, make the topics anew and copy them again, write behind them what stands
            of their keys, or delete all up to their end.
        old_logs: the same for single topics.
        records_per_second: how fast they are exported and written again.
    """

    resolve: ResolvePolicy = "quarantine"
    topics: dict[TopicName, ResolvePolicy] = {}
    old_log: OldLogPolicy = "keep"
    old_logs: dict[TopicName, OldLogPolicy] = {}
    records_per_second: Annotated[int, Meta(ge=1, le=100_000)] = 5_000


class ReplicationGroup(Written, frozen=True):
    """The topics and consumer groups that move together.

    Attributes:
        name: unique.
        mode: one region open for writing, or all.
        policy: MM2's replication policy.
        topics: by the name that they have where they are written.
        groups: consumer groups whose positions move along.
        live_sync: which of them (shell patterns) have their positions kept committed in the standby.
        flows: one per direction.
        principals: whom a fence refuses.
        probe: proves fences; without it every fence stays unverified.
        objectives: what a move may cost.
        runbooks: a folder; the ones shipped with mrc where left out.
        rules: the conflict rules' file; active-active only.
        routing: how clients are redirected, beside the active-region record.
        on_quorum_loss: whether agents refuse writes in their open region when they hear no ZooKeeper majority.
        self_fence_after_s: for how long they must have heard none; longer than the session time-out.
        divergence: what becomes of records that a failover leaves behind.
    """

    name: Name
    mode: Mode
    policy: Policy
    topics: Annotated[tuple[TopicName, ...], Meta(min_length=1)]
    groups: tuple[NonEmpty, ...]
    flows: Annotated[tuple[FlowSettings, ...], Meta(min_length=1)]
    principals: Principals = Principals()
    probe: ProbeSettings | None = None
    objectives: Objectives = Objectives()
    runbooks: Path | None = None
    rules: Path | None = None
    routing: RoutingSettings | None = None
    live_sync: tuple[NonEmpty, ...] = ("*",)
    on_quorum_loss: Literal["keep", "fence"] = "keep"
    self_fence_after_s: Annotated[float, Meta(gt=0, le=3600)] = 15.0
    divergence: DivergenceSettings = DivergenceSettings()


class TlsSettings(Written, frozen=True):
    """Mutual TLS between agents, and between agents and the command line."""

    cert_file: Path
    key_file: Path
    ca_file: Path


class GrpcSettings(Written, frozen=True):
    """How the API is served. Without TLS agents bind to loopback only."""

    tls: TlsSettings | None = None


class Settings(Written, frozen=True):
    """The whole file.

    Attributes:
        version: of this schema.
        zookeeper: the ensemble.
        regions: by name, at least two.
        replication_groups: at least one.
        grpc: how the API is served.
        base: the file's folder; not written in the file.
    """

    version: Literal[1]
    zookeeper: ZooKeeperSettings
    regions: Annotated[dict[Name, RegionSettings], Meta(min_length=2)]
    replication_groups: Annotated[tuple[ReplicationGroup, ...], Meta(min_length=1)]
    grpc: GrpcSettings = GrpcSettings()
    base: Path = Path()

    def replication_group(self, name: str | None = None) -> ReplicationGroup:
        """Return the named replication group; None means the only one.

        Raises:
            MrcError: ``UNKNOWN_REPLICATION_GROUP``, also where None is given and there are several.
        """
        if name is None and len(self.replication_groups) == 1:
            return self.replication_groups[0]
        for group in self.replication_groups:
            if group.name == name:
                return group
        names = ", ".join(group.name for group in self.replication_groups)
        said = "there are several replication groups" if name is None else f"there is no replication group {name!r}"
        raise MrcError("UNKNOWN_REPLICATION_GROUP", f"{said}; configured: {names}")

    def region(self, name: str) -> RegionSettings:
        """Return the named region. Raises ``UNKNOWN_REGION``."""
        found = self.regions.get(name)
        if found is None:
            raise MrcError("UNKNOWN_REGION", f"there is no region {name!r}; configured: {', '.join(self.regions)}")
        return found

"""The sandbox's brokers: configuration, users, topics and ACLs.

Deny by default: a fence made of ACLs is only real where nobody passes without one. Everything here may be repeated.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from mrc.core.errors import MrcError
from mrc.core.model import Region, target_topic
from mrc.sandbox import layout as places
from mrc.sandbox import processes
from mrc.sandbox.layout import Layout, State

FORMAT_TIMEOUT_S = 240.0
REQUEST_TIMEOUT_S = 60.0
TEST_GROUP_PREFIXES = ("app-", "bench-", "demo-", "e2e-", "test-")

Grant = tuple[str, ResourceType, str, bool, Sequence[AclOperation]]
"""Principal's user name, resource, its name, whether that is a prefix, and what is allowed."""


def properties(layout: Layout, state: State, region: str, node: int) -> str:
    """Return the configuration of one combined broker and controller."""
    part = places.broker(region, node)
    ports = {use: layout.ports[f"{part}.{use}"] for use in ("client", "remote", "broker", "controller")}
    password = state.secret(places.BROKER_USER).read_text()
    voters = [f"{n}@{places.HOST}:{layout.ports[f'{places.broker(region, n)}.controller']}" for n in layout.broker_ids()]
    copies = layout.options.brokers
    user = places.BROKER_USER
    module = "org.apache.kafka.common.security.plain.PlainLoginModule"
    internal = f'{module} required username="{user}" password="{password}" user_{user}="{password}";'
    listed = ",".join(f"{use.upper()}://{places.HOST}:{port}" for use, port in ports.items())
    told = ("client", "remote", "broker")
    settings: dict[str, object] = {
        "process.roles": "broker,controller",
        "node.id": node,
        "controller.quorum.voters": ",".join(voters),
        "log.dirs": state.data(part),
        # Clients inside the region, clients from other regions, and the cluster itself each have a listener.
        "listeners": listed,
        "advertised.listeners": ",".join(f"{use.upper()}://{places.HOST}:{layout.listener(region, node, use)}" for use in told),
        "listener.security.protocol.map": ",".join(f"{use.upper()}:SASL_PLAINTEXT" for use in ports),
        "inter.broker.listener.name": "BROKER",
        "controller.listener.names": "CONTROLLER",
        # SCRAM serves no KRaft controller: its users live in the very log that the controllers are to agree on.
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "sasl.mechanism.controller.protocol": "PLAIN",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "false",
        "super.users": f"User:{places.BROKER_USER};User:admin",
        "auto.create.topics.enable": "false",
        "default.replication.factor": copies,
        "min.insync.replicas": 2 if copies > 1 else 1,
        "num.partitions": 1,
        "offsets.topic.replication.factor": copies,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": 2 if copies > 1 else 1,
        "transaction.state.log.num.partitions": 4,
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 1000,
        # A broker that was killed may register again only when its old session has ended.
        "broker.session.timeout.ms": 4000,
        "broker.heartbeat.interval.ms": 500,
        # Small: everything of both regions shares one machine.
        "num.network.threads": 2,
        "num.io.threads": 4,
        "log.cleaner.dedupe.buffer.size": 4 << 20,
        "log.index.size.max.bytes": 1 << 20,
    }
    for use in ("client", "remote"):
        settings[f"listener.name.{use}.sasl.enabled.mechanisms"] = "SCRAM-SHA-512"
        settings[f"listener.name.{use}.scram-sha-512.sasl.jaas.config"] = (
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        )
    for use in ("broker", "controller"):
        settings[f"listener.name.{use}.sasl.enabled.mechanisms"] = "PLAIN"
        settings[f"listener.name.{use}.plain.sasl.jaas.config"] = internal
    return "".join(f"{name}={value}\n" for name, value in settings.items())


def prepare(layout: Layout, state: State, region: str, node: int, java: Sequence[str]) -> Path:
    """Write the broker's configuration, format its data folder where that was not finished, and return the configuration's path.

    Raises ``SANDBOX_FAILED`` when Kafka's storage tool fails.
    """
    part = places.broker(region, node)
    path = state.settings(part)
    places.write_private(path, properties(layout, state, region, node))
    finished = state.data(part) / "formatted"
    if not finished.exists():
        _format(layout.clusters[region], state, part, path, java)
        finished.touch()
    return path


def _format(cluster: str, state: State, part: str, path: Path, java: Sequence[str]) -> None:
    arguments = ["format", "--ignore-formatted", "-t", cluster, "-c", str(path)]
    for user in places.USERS:
        arguments += ["--add-scram", f"SCRAM-SHA-512=[name={user},password={state.secret(user).read_text()}]"]
    # The tool reads its arguments from a file, so that no password shows in the list of processes.
    listed = path.with_name(f"{part}.format")
    places.write_private(listed, "\n".join(arguments))
    try:
        done = subprocess.run(
            [*java, "kafka.tools.StorageTool", f"@{listed}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=FORMAT_TIMEOUT_S,
            check=False,
            env=processes.marked(state.folder, part),
        )
    except subprocess.TimeoutExpired as expired:
        raise MrcError("SANDBOX_FAILED", f"formatting did not finish in {FORMAT_TIMEOUT_S:.0f} s", where=part, retryable=True) from expired
    finally:
        listed.unlink(missing_ok=True)
    if done.returncode != 0:
        raise MrcError("SANDBOX_FAILED", f"formatting failed: {(done.stdout + done.stderr).strip()[-400:]}", where=part)


def client_config(layout: Layout, state: State, region: str, user: str) -> dict[str, str]:
    """Return librdkafka's settings for ``user`` in ``region``; what clients inside the region would use."""
    return {
        "bootstrap.servers": layout.bootstrap(region),
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": user,
        "sasl.password": state.secret(user).read_text(),
    }


class RegionCluster:
    """One region's cluster as its administrator sees it."""

    def __init__(self, layout: Layout, state: State, region: str) -> None:
        self._layout = layout
        self._region = region
        # Refused connections are expected while brokers start; `serves` says what comes of them.
        quiet = {"log_level": "0", "reconnect.backoff.max.ms": "500", "socket.timeout.ms": "10000"}
        self._admin = AdminClient({**client_config(layout, state, region, "admin"), **quiet})

    def serves(self) -> bool:
        """Whether every broker of the region is in the cluster's metadata and answers within 2 s."""
        try:
            return len(self._admin.list_topics(timeout=2.0).brokers) == self._layout.options.brokers
        except KafkaException:
            return False

    def furnish(self) -> None:
        """Make the application topics and everybody's ACLs where they are missing. Raises ``SANDBOX_FAILED``."""
        copies = self._layout.options.brokers
        new = [NewTopic(name, num_partitions=partitions, replication_factor=copies) for name, partitions in places.TOPICS.items()]
        for name, made in self._admin.create_topics(new, operation_timeout=REQUEST_TIMEOUT_S, request_timeout=REQUEST_TIMEOUT_S).items():
            try:
                made.result(timeout=2 * REQUEST_TIMEOUT_S)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise MrcError("SANDBOX_FAILED", f"cannot make topic {name}: {error}", where=self._region, retryable=True) from error
        for binding, added in self._admin.create_acls(bindings(self._layout, self._region), request_timeout=REQUEST_TIMEOUT_S).items():
            try:
                added.result(timeout=2 * REQUEST_TIMEOUT_S)
            except KafkaException as error:
                raise MrcError("SANDBOX_FAILED", f"cannot add {binding}: {error}", where=self._region, retryable=True) from error


def bindings(layout: Layout, region: str) -> list[AclBinding]:
    """Return every ALLOW of ``region``. Nobody else may do anything."""
    return [
        AclBinding(
            resource,
            name,
            ResourcePatternType.PREFIXED if prefix else ResourcePatternType.LITERAL,
            f"User:{user}",
            "*",
            operation,
            AclPermissionType.ALLOW,
        )
        for user, resource, name, prefix, operations in _grants(layout, region)
        for operation in operations
    ]


def _grants(layout: Layout, region: str) -> Iterator[Grant]:
    topic, group, cluster, transaction = ResourceType.TOPIC, ResourceType.GROUP, ResourceType.BROKER, ResourceType.TRANSACTIONAL_ID
    does = AclOperation
    for name in places.TOPICS:
        yield "producer", topic, name, False, (does.WRITE, does.DESCRIBE)
        yield "probe", topic, name, False, (does.WRITE, does.DESCRIBE)
        for readable in dict.fromkeys((name, target_topic(layout.options.policy, Region(places.other(region)), name))):
            yield "consumer", topic, readable, False, (does.READ, does.DESCRIBE)
    yield "producer", transaction, "*", False, (does.WRITE, does.DESCRIBE)
    # An idempotent producer gets its id while its topics are still fenced, and writes at once when they open.
    yield "producer", cluster, "kafka-cluster", False, (does.IDEMPOTENT_WRITE,)
    for name in places.GROUPS:
        yield "consumer", group, name, False, (does.READ, does.DESCRIBE)
    for prefix in TEST_GROUP_PREFIXES:
        yield "consumer", group, prefix, True, (does.READ, does.DESCRIBE)

    for resource in (topic, group, transaction):
        yield "mm2", resource, "*", False, (does.ALL,)
    yield "mm2", cluster, "kafka-cluster", False, (does.ALL,)

    yield "mrc", cluster, "kafka-cluster", False, (does.ALTER, does.DESCRIBE, does.DESCRIBE_CONFIGS, does.CREATE)
    yield "mrc", topic, "*", False, (does.READ, does.DESCRIBE, does.DESCRIBE_CONFIGS, does.ALTER_CONFIGS)
    yield "mrc", topic, "mrc.", True, (does.ALL,)
    for name in places.TOPICS:  # for a failback that re-emits records, or makes the old region's topics anew
        yield "mrc", topic, name, False, (does.WRITE, does.DELETE)
    yield "mrc", transaction, "mrc.recovery.", True, (does.WRITE, does.DESCRIBE)
    yield "mrc", group, "*", False, (does.READ, does.DESCRIBE)
    yield "mrc", transaction, "*", False, (does.DESCRIBE,)
    yield "mrc", transaction, "mrc.", True, (does.WRITE, does.DESCRIBE)

"""The sandbox's Connect workers and the MirrorMaker 2 connectors of the flow into each region.

Each region has one worker on its own cluster; it reads the other region through that region's remote listener. An
existing connector is left as it is: whether it runs is decided by moves, not by the sandbox.
"""

from __future__ import annotations

import http
import http.client
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec

from mrc.core.errors import MrcError
from mrc.core.model import decode
from mrc.core.translation.changed import BYTES_AS_THEY_ARE
from mrc.sandbox import layout as places
from mrc.sandbox.layout import Layout, State

USER = "mm2"
CHECKPOINT = ".checkpoint"
REQUEST_TIMEOUT_S = 60.0
# A worker that was killed is forgotten about when its successor has loaded its classes.
SESSION_TIMEOUT_MS = 5000


T = TypeVar("T")


class _State(msgspec.Struct):
    state: str
    trace: str = ""


class _Status(msgspec.Struct):
    connector: _State
    tasks: list[_State]


class _Info(msgspec.Struct):
    tasks: list[dict[str, object]]


class Entry(msgspec.Struct):
    """What Connect says of a connector. A task without a status of its own, which has not begun, is in ``info`` alone."""

    status: _Status
    info: _Info


def flow_connector(source: str, target: str) -> str:
    """Return the name of the flow's source connector; the others add a suffix."""
    return f"mrc.{places.REPLICATION_GROUP}.{source}-{target}"


def worker_properties(layout: Layout, state: State, region: str) -> str:
    """Return the worker's configuration."""
    copies = layout.options.brokers
    settings: dict[str, object] = {
        "bootstrap.servers": layout.bootstrap(region),
        "group.id": f"connect-{region}",
        "client.id": f"connect-{region}",
        "listeners": layout.connect_url(region),
        "rest.advertised.host.name": places.HOST,
        **BYTES_AS_THEY_ARE,
        "plugin.discovery": "service_load",
        "config.storage.topic": "connect-configs.internal",
        "config.storage.replication.factor": copies,
        "offset.storage.topic": "connect-offsets.internal",
        "offset.storage.replication.factor": copies,
        "offset.storage.partitions": 1,
        "status.storage.topic": "connect-status.internal",
        "status.storage.replication.factor": copies,
        "status.storage.partitions": 1,
        "offset.flush.interval.ms": 500,
        "scheduled.rebalance.max.delay.ms": 500,
        "session.timeout.ms": SESSION_TIMEOUT_MS,
        "heartbeat.interval.ms": 1000,
        # A task that hangs on a dead source is given up after this.
        "task.shutdown.graceful.timeout.ms": 2000,
        "consumer.isolation.level": "read_committed",
    }
    if layout.options.mm2_exactly_once:
        settings["exactly.once.source.support"] = "enabled"
    for prefix in ("", "producer.", "consumer.", "admin."):
        settings |= {f"{prefix}{name}": value for name, value in _login(state).items()}
    return "".join(f"{name}={value}\n" for name, value in settings.items())


def prepare(layout: Layout, state: State, region: str) -> Path:
    """Write the worker's configuration and return its path."""
    path = state.settings(f"{region}-connect")
    places.write_private(path, worker_properties(layout, state, region))
    return path


def connectors(layout: Layout, state: State, target: str) -> dict[str, dict[str, str]]:
    """Return the connectors of the flow into ``target``, by name."""
    source = places.other(target)
    name = flow_connector(source, target)
    copies = str(layout.options.brokers)
    policy = "IdentityReplicationPolicy" if layout.options.policy == "identity" else "DefaultReplicationPolicy"
    common = {
        "source.cluster.alias": source,
        "target.cluster.alias": target,
        "source.cluster.bootstrap.servers": layout.bootstrap(source, "remote"),
        "target.cluster.bootstrap.servers": layout.bootstrap(target),
        **{f"{side}.cluster.{key}": value for side in ("source", "target") for key, value in _login(state).items()},
        "replication.policy.class": f"org.apache.kafka.connect.mirror.{policy}",
        "topics": ",".join(places.TOPICS),
        # In the target, for the source may die.
        "offset-syncs.topic.location": "target",
        "offset-syncs.topic.replication.factor": copies,
        # How long a call to a dead source keeps a connector from stopping.
        "source.admin.request.timeout.ms": "4000",
        "source.admin.default.api.timeout.ms": "5000",
    }
    return {
        name: {
            **common,
            # Both regions may be written under the default policy, and then their resolvers' marks must get across.
            "topics": common["topics"] + ("" if layout.options.policy == "identity" else ",mrc[.]watermarks[.].*"),
            "connector.class": "org.apache.kafka.connect.mirror.MirrorSourceConnector",
            # Here too: mrc sees what is set here, and nothing of the worker's settings.
            **BYTES_AS_THEY_ARE,
            "tasks.max": "2",
            "replication.factor": copies,
            # Nobody reads heartbeats here, and the flow's positions speak of the application topics alone.
            "heartbeats.replication.enabled": "false",
            # It would copy DENYs, and so carry one region's fence into the other.
            "sync.topic.acls.enabled": "false",
            # A connector that is just looking for topics in a dead source takes that long to say that it stopped.
            "refresh.topics.interval.seconds": "60",
            "consumer.poll.timeout.ms": "100",
            "source.consumer.isolation.level": "read_committed",
            # Ten or a thousand records a second on many partitions then cost a few requests and not as many as records.
            "source.consumer.fetch.min.bytes": "32768",
            "source.consumer.fetch.max.wait.ms": "25",
        },
        f"{name}{CHECKPOINT}": {
            **common,
            "connector.class": "org.apache.kafka.connect.mirror.MirrorCheckpointConnector",
            "tasks.max": "1",
            "groups": ".*",
            "checkpoints.topic.replication.factor": copies,
            "emit.checkpoints.interval.seconds": str(layout.options.mm2_checkpoints_every_s),
            "refresh.groups.interval.seconds": str(max(5, layout.options.mm2_checkpoints_every_s)),
            # mrc commits positions; two writers would overwrite one another.
            "sync.group.offsets.enabled": "false",
        },
    }


def serves(url: str) -> bool:
    """Whether the worker at ``url`` has joined its group and answers for its connectors."""
    try:
        _call("GET", f"{url}/connectors", list[str], timeout_s=2.0)
    except MrcError:
        return False
    return True


def furnish(layout: Layout, state: State, target: str) -> None:
    """Make the connectors of the flow into ``target`` where they are missing; those of a flow that must not run, stopped.

    Raises ``SANDBOX_FAILED``, retryable where the worker is not ready for it yet.
    """
    url = layout.connect_url(target)
    there = _call("GET", f"{url}/connectors", list[str])
    runs = layout.active_flow(places.other(target))
    for name, config in connectors(layout, state, target).items():
        if name not in there:
            body = {"name": name, "config": config, "initial_state": "RUNNING" if runs else "STOPPED"}
            _call("POST", f"{url}/connectors", dict[str, object], msgspec.json.encode(body))


def settled(layout: Layout, state: State, target: str) -> bool:
    """Whether every connector into ``target`` is there and either is stopped, without tasks, or runs with all its tasks.

    Raises ``SANDBOX_FAILED`` with the first line of the trace when one has failed.
    """
    try:
        entries = _call("GET", f"{layout.connect_url(target)}/connectors?expand=status&expand=info", dict[str, Entry])
    except MrcError:
        return False
    return not unsettled(connectors(layout, state, target), entries)


def restart_failed(layout: Layout, target: str) -> list[str]:
    """Start failed tasks of the connectors into ``target`` again, as whoever supervises Connect does; return the connectors' names.

    Tasks never recover by themselves. Where a region that was killed returns, one that works exactly once now and then fails with
    ``InvalidTxnStateException`` (Kafka 4.3.1).
    """
    url = layout.connect_url(target)
    entries = _call("GET", f"{url}/connectors?expand=status&expand=info", dict[str, Entry])
    failed = sorted(name for name, entry in entries.items() if any(task.state == "FAILED" for task in entry.status.tasks))
    for name in failed:
        _call("POST", f"{url}/connectors/{name}/restart?includeTasks=true&onlyFailed=true", dict[str, object])
    return failed


def unsettled(names: Iterable[str], entries: Mapping[str, Entry]) -> list[str]:
    """Return those of the named connectors that Connect does not tell of yet, and whatever it tells of and has not settled."""
    missing = [name for name in names if name not in entries]
    return missing + [name for name, entry in sorted(entries.items()) if not _settled(name, entry)]


def _settled(name: str, entry: Entry) -> bool:
    status = entry.status
    states = [status.connector, *status.tasks]
    for one in states:
        if one.state == "FAILED" and "TopicAuthorizationException" in one.trace:
            return False  # a flow that mrc has blocked fails until mrc has stopped it
        if one.state == "FAILED":
            raise MrcError("SANDBOX_FAILED", f"connector {name} failed: {one.trace.partition(chr(10))[0]}", where=name)
    if status.connector.state == "STOPPED":
        return not status.tasks
    # MM2's checkpoint connector has no tasks while there are no groups.
    begun = len(status.tasks) >= len(entry.info.tasks) and (bool(status.tasks) or name.endswith(CHECKPOINT))
    return begun and all(one.state == "RUNNING" for one in states)


def _login(state: State) -> dict[str, str]:
    module = "org.apache.kafka.common.security.scram.ScramLoginModule"
    return {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.jaas.config": f'{module} required username="{USER}" password="{state.secret(USER).read_text()}";',
    }


def _call(method: str, url: str, kind: type[T], body: bytes | None = None, timeout_s: float = REQUEST_TIMEOUT_S) -> T:
    """Return the decoded answer. Raises ``SANDBOX_FAILED`` for every refusal and for no answer."""
    parts = urlsplit(url)
    link = http.client.HTTPConnection(parts.hostname or places.HOST, parts.port, timeout=timeout_s)
    try:
        link.request(method, f"{parts.path}?{parts.query}", body, {"Content-Type": "application/json"})
        answer = link.getresponse()
        said = answer.read()
        if answer.status < http.HTTPStatus.BAD_REQUEST:
            return decode(said, kind)
    except (OSError, http.client.HTTPException, msgspec.MsgspecError) as error:
        raise MrcError("SANDBOX_FAILED", f"Connect did not answer {method}: {error}", where=url, retryable=True) from error
    finally:
        link.close()
    # 409: the worker is just rebalancing; 5xx: it is not ready yet.
    retryable = answer.status in (http.HTTPStatus.CONFLICT, http.HTTPStatus.INTERNAL_SERVER_ERROR, http.HTTPStatus.SERVICE_UNAVAILABLE)
    message = f"Connect refused {method} with {answer.status}: {said[:400].decode(errors='replace')}"
    raise MrcError("SANDBOX_FAILED", message, where=url, retryable=retryable)

"""Servers that hang without closing a connection, and come back: deadlines hold, nothing is made up, the process lives."""

from __future__ import annotations

import os
import signal
import socket
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from mrc.adapters.kafka import KafkaCluster
from mrc.adapters.zookeeper import ZooKeeperTree
from mrc.core.errors import MrcError
from mrc.core.model import GroupId, Offset, TopicPartition
from mrc.ports import Position
from mrc.sandbox.world import Sandbox
from tests.contract.cluster_stages import access, fresh_group
from tests.contract.waiting import eventually

pytestmark = pytest.mark.server

ORDERS = TopicPartition("orders", 0)


@contextmanager
def hanging(sandbox: Sandbox, parts: Sequence[str]) -> Iterator[None]:
    pids = [status.pid for status in sandbox.status() if status.part in parts and status.pid is not None]
    assert len(pids) == len(parts)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        # Threads stop one after the other, and a running one could still answer.
        eventually(lambda: None, lambda: all(_stopped(pid) for pid in pids))
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def _stopped(pid: int) -> bool:
    states = [stat.read_text().rpartition(")")[2].split()[0] for stat in Path(f"/proc/{pid}/task").glob("*/stat")]
    return set(states) == {"T"}


@pytest.mark.parametrize(
    "call",
    [
        # These three brought the driver to abort the process when the late answer came.
        lambda cluster, group: cluster.commit_positions(group, {ORDERS: Position(Offset(0))}),
        lambda cluster, group: cluster.positions(group),
        lambda cluster, group: cluster.positions_of([group, *(fresh_group() for _ in range(30))]),
        lambda cluster, group: cluster.group(group),
        # This one was answered with offset -1001.
        lambda cluster, _: cluster.starts([ORDERS]),
    ],
    ids=["commit", "positions", "positions-of-many", "group", "starts"],
)
def test_a_broker_that_hangs_and_comes_back_harms_nobody(sandbox: Sandbox, call: Callable[[KafkaCluster, GroupId], object]) -> None:
    cluster = KafkaCluster("east", access(sandbox, "east", "mrc"), None, 1.0)
    cluster.topics(["orders"])
    with hanging(sandbox, ["east-broker-1"]), pytest.raises(MrcError) as raised:
        call(cluster, fresh_group())
    assert raised.value.code == "CLUSTER_UNREACHABLE"

    def answers() -> bool:
        try:
            call(cluster, fresh_group())
        except MrcError:
            return False
        return True

    eventually(lambda: None, answers)
    cluster.close()


def test_without_a_quorum_there_are_no_reads_and_no_lease(sandbox: Sandbox) -> None:
    servers = [part for part in sandbox.layout.servers() if part.kind == "zookeeper"]
    # A follower serves plain reads from its memory; the leader notices by itself that it is alone, some ticks later.
    follower = next(part for part in servers if _mode(part.port) == "follower")
    tree = ZooKeeperTree(f"127.0.0.1:{follower.port}", f"/contract/{uuid.uuid4().hex[:8]}", 4000, 1.0)
    tree.get("/")
    with hanging(sandbox, [part.name for part in servers if part is not follower]):
        began_s = tree.lease_s()
        with pytest.raises(MrcError) as raised:
            tree.get("/")
        assert raised.value.code == "ZOOKEEPER_UNREACHABLE"
        assert tree.lease_s() < began_s
    eventually(lambda: None, lambda: _answers(tree))
    tree.close()


def _mode(port: int) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"srvr")
        told = b"".join(iter(lambda: connection.recv(4096), b"")).decode()
    return next(line.removeprefix("Mode: ") for line in told.splitlines() if line.startswith("Mode: "))


def _answers(tree: ZooKeeperTree) -> bool:
    try:
        tree.get("/")
    except MrcError:
        return False
    return True

"""A wrong password is told as one, soon, whatever was asked: the driver itself only times out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from mrc.adapters.kafka import KafkaCluster
from mrc.core.errors import MrcError
from mrc.core.model import Offset, TopicPartition
from mrc.sandbox.world import Sandbox
from tests.contract.cluster_stages import DEADLINE_S, access

pytestmark = pytest.mark.server

ORDERS = TopicPartition("orders", 0)


@pytest.fixture
def refused(sandbox: Sandbox) -> Iterator[KafkaCluster]:
    wrong = access(sandbox, "east", "mrc").as_principal("mrc", "wrong")
    cluster = KafkaCluster("east", wrong, wrong, DEADLINE_S)
    yield cluster
    cluster.close()


def _read(cluster: KafkaCluster) -> None:
    reader = cluster.reader({ORDERS: Offset(0)})
    try:
        for _ in range(20):
            reader.poll(1, 0.1)
    finally:
        reader.close()


@pytest.mark.parametrize(
    "call",
    [
        lambda cluster: cluster.topics(["orders"]),
        lambda cluster: cluster.bindings(),
        lambda cluster: cluster.append("mrc.test.internal", [(b"k", b"v")]),
        _read,
    ],
    ids=["topics", "bindings", "append", "reader"],
)
def test_a_wrong_password_is_an_authentication_failure(refused: KafkaCluster, call: Callable[[KafkaCluster], object]) -> None:
    with pytest.raises(MrcError) as raised:
        call(refused)
    assert (raised.value.code, raised.value.retryable) == ("AUTHENTICATION_FAILED", False)
    assert "wrong" not in str(raised.value)


def test_a_wrong_password_of_the_probe_is_not_a_fence(sandbox: Sandbox) -> None:
    mrc = access(sandbox, "east", "mrc")
    cluster = KafkaCluster("east", mrc, mrc.as_principal("probe", "wrong"), DEADLINE_S)
    began_s = time.monotonic()
    with pytest.raises(MrcError) as raised:
        cluster.probe([ORDERS])
    cluster.close()
    assert raised.value.code == "AUTHENTICATION_FAILED"
    assert time.monotonic() - began_s < DEADLINE_S


def test_acls_that_may_not_be_listed_are_an_error_and_not_none(sandbox: Sandbox) -> None:
    cluster = KafkaCluster("east", access(sandbox, "east", "producer"), None, DEADLINE_S)
    with pytest.raises(MrcError) as raised:
        cluster.bindings()
    cluster.close()
    assert raised.value.code == "AUTHORIZATION_FAILED"


def test_an_access_does_not_show_its_password(sandbox: Sandbox) -> None:
    mrc = access(sandbox, "east", "mrc")
    assert mrc.password not in f"{mrc} {mrc!r}"

"""Logs are read up to where one says, or it is an error: a part is never taken for the whole."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from confluent_kafka import Producer

from mrc.adapters.kafka.access import Access
from mrc.adapters.kafka.logs import KafkaLogs, committed
from mrc.core.errors import MrcError
from mrc.core.model import Offset, TopicPartition
from mrc.ports import Span

TP = TopicPartition("orders", 0)


@pytest.fixture
def access() -> Iterator[Access]:
    """A cluster in the driver's own memory, with three records in one partition."""
    keeper = Producer({"test.mock.num.brokers": 1, "log_level": 0})
    for _ in range(3):
        keeper.produce(TP.topic, b"x", partition=TP.partition)
    assert keeper.flush(10) == 0
    yield Access(",".join(f"{each.host}:{each.port}" for each in keeper.list_topics(timeout=10).brokers.values()))
    keeper.close()


def test_records_up_to_the_end_that_was_asked_for_are_read(access: Access) -> None:
    for end in (2, 3):
        found = [one.offset() for some in committed(access, "east", {TP: Offset(0)}, 10, {TP: Offset(end)}) for one in some]
        assert found == list(range(end))


def test_a_log_that_ends_before_what_was_asked_for_is_an_error_and_not_its_end(access: Access) -> None:
    logs = KafkaLogs("east", access, 1.0)
    with pytest.raises(MrcError, match="read orders-0 up to 5") as caught:
        list(logs.read({TP: Span(Offset(0), Offset(5))}))
    assert (caught.value.code, caught.value.retryable) == ("CLUSTER_UNREACHABLE", True)
    logs.close()

"""What is read for others is read sparingly, and stops when they are gone."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mrc.core.errors import MrcError
from mrc.core.model import Offset, TopicPartition
from mrc.ports import Span
from mrc.resolver.docket import PAUSE_S_MAX, SparingLogs
from mrc.sim.clock import FakeClock
from mrc.sim.streams import FakeLogs, StreamCluster

TP = TopicPartition("t", 0)


def sparing(clock: FakeClock, check: Callable[[], None] = lambda: None, records_max: int = 10) -> SparingLogs:
    cluster = StreamCluster(clock.now_ms)
    cluster.make("t", 1)
    for number in range(10):
        cluster.write("t", 0, b"k", str(number).encode(), [])
    return SparingLogs(FakeLogs(cluster), clock, check, records_max)


def read(logs: SparingLogs, begin: int, end: int) -> int:
    return sum(len(batch) for batch in logs.read({TP: Span(Offset(begin), Offset(end))}))


def test_the_bound_is_for_all_readings_of_a_call_together() -> None:
    logs = sparing(FakeClock())
    assert (read(logs, 0, 4), read(logs, 4, 10)) == (4, 6)
    with pytest.raises(MrcError, match="more than 10 records") as caught:
        read(logs, 9, 10)
    assert caught.value.code == "TOO_MUCH_TO_READ"


@pytest.mark.parametrize(("took_s", "rests_s"), [(0.1, 0.1), (5.0, PAUSE_S_MAX)])
def test_it_rests_as_long_as_a_batch_has_taken_up_to_a_bound(took_s: float, rests_s: float) -> None:
    clock = FakeClock()
    for batches in (sparing(clock).read({TP: Span(Offset(0), Offset(10))}), sparing(clock).follow({TP: Offset(0)})):
        assert len(next(batches)) == 10
        clock.sleep(took_s)
        before_s = clock.monotonic_s()
        next(batches, None)
        assert clock.monotonic_s() - before_s == pytest.approx(rests_s)


def test_nothing_more_is_read_for_who_is_gone() -> None:
    here = [True]

    def check() -> None:
        if not here[0]:
            raise MrcError("AGENT_UNREACHABLE", "the caller is gone")

    logs = sparing(FakeClock(), check)
    following = logs.follow({TP: Offset(0)})
    assert (len(next(following)), next(following)) == (10, [])
    here[0] = False
    for ask in (lambda: next(following), lambda: read(logs, 0, 1), lambda: logs.spans(["t"])):
        with pytest.raises(MrcError, match="gone"):
            ask()

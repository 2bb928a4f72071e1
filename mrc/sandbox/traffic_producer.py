"""The traffic's producer process: order events at a steady rate into the active region.

Owns the events' identity and order: an event keeps its id when it is sent again, and what came back is sent again
before anything new. Invariant: an event is logged as acknowledged only from its delivery report.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mrc.client.place import Follows
from mrc.client.producer import Acknowledged, FollowingProducer
from mrc.core.model import Region
from mrc.sandbox.traffic_log import Acked, Event, InDoubt, LogWriter, encode_event

_KEYS = 499
_TICK_S = 0.01
_PENDING_MAX = 1_000
_BURST_S = 0.25
_GIVE_UP_AFTER_S = 5.0


class _Sending:
    """An event on its way: the token that comes back with the answer."""

    __slots__ = ("doubts", "event", "topic")

    def __init__(self, topic: str, event: Event) -> None:
        self.topic = topic
        self.event = event
        self.doubts = 0


class Orders:
    """Makes order events: keys in turn, topics in turn, a sequence number per topic and key."""

    def __init__(self, run: str, topics: Sequence[str]) -> None:
        """Make the events of one run; ``run`` is part of every id and key, so that runs never mix."""
        self._run = run
        self._topics = tuple(topics)
        self._made = 0
        self._seq: defaultdict[tuple[str, str], int] = defaultdict(int)

    def make(self) -> tuple[str, Event]:
        """Return the next event and its topic."""
        number = self._made
        self._made += 1
        topic = self._topics[number % len(self._topics)]
        key = f"{self._run}-{number % _KEYS}"
        seq = self._seq[topic, key]
        self._seq[topic, key] = seq + 1
        return topic, Event(f"{self._run}-{number}", key, seq, 100 + number % 9_900, time.time())


class ProducerProcess:
    """Sends at ``rate`` events per second while a region is open; what falls due while none is, is not made up for."""

    def __init__(
        self,
        active: Follows,
        configs: Mapping[Region, Mapping[str, Any]],
        topics: Sequence[str],
        rate: float,
        log: LogWriter,
        run: str,
    ) -> None:
        """Make it; nothing is sent before `run_until`."""
        self._rate = rate
        self._log = log
        self._orders = Orders(run, topics)
        self._follower: FollowingProducer[_Sending] = FollowingProducer(active, configs, self._acknowledged)
        self._again: deque[_Sending] = deque()

    def run_until(self, stop: Callable[[], bool]) -> None:
        """Send until ``stop`` says so; then wait for answers, for a bounded time, and close."""
        due = 0.0
        before_s = time.monotonic()
        place = None
        while not stop():
            self._serve()
            now_s = time.monotonic()
            due = min(due + (now_s - before_s) * self._rate, self._rate * _BURST_S)
            before_s = now_s
            if self._follower.place != place:
                place = self._follower.place
                if place is None:
                    self._log.turn("producer", "", 0, "left")
                else:
                    self._log.turn("producer", place.region, place.epoch, "started")
            if place is None:
                due = 0.0
            due -= self._send(int(due))
        self._finish()

    def _serve(self) -> None:
        self._follower.tend(_TICK_S)
        self._take_back()
        self._log.flush()

    def _take_back(self) -> None:
        back = self._follower.take_unacknowledged()
        for each in back:
            sending = each.token
            sending.doubts += 1
            event = sending.event
            self._log.write(
                InDoubt(time.time(), each.place.region, each.place.epoch, sending.topic, event.key, event.seq, event.id, each.reason)
            )
        # What waits here was made after what comes back.
        self._again.extendleft(each.token for each in reversed(back))

    def _send(self, count: int) -> int:
        while self._again and self._follower.pending < _PENDING_MAX and self._hand_over(self._again[0]):
            self._again.popleft()
        if self._again:
            return 0
        sent = 0
        while sent < count and self._follower.pending < _PENDING_MAX:
            sending = _Sending(*self._orders.make())
            if not self._hand_over(sending):
                self._again.append(sending)
                break
            sent += 1
        return sent

    def _hand_over(self, sending: _Sending) -> bool:
        return self._follower.send(sending.topic, sending.event.key.encode(), encode_event(sending.event), sending)

    def _acknowledged(self, answer: Acknowledged[_Sending]) -> None:
        event, place = answer.token.event, answer.place
        self._log.write(
            Acked(
                time.time(),
                place.region,
                place.epoch,
                answer.topic,
                answer.partition,
                answer.offset,
                event.key,
                event.seq,
                event.id,
                answer.token.doubts > 0,
            )
        )

    def _finish(self) -> None:
        deadline_s = time.monotonic() + _GIVE_UP_AFTER_S
        while (self._again or self._follower.pending) and time.monotonic() < deadline_s:
            self._send(0)
            self._serve()
        self._follower.close(flush_bound_s=0.2)
        self._take_back()
        self._log.turn("producer", "", 0, "ended")
        self._log.close()

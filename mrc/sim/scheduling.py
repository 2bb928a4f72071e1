"""Virtual time: one event after another, in the order of their times, whatever thread carries them out.

Production code waits inside of its calls (`Clock.sleep`), so a call that waits keeps a stack of its own while the rest of the world goes
on. Each such stack is a thread, and exactly one thread runs at any instant: whoever waits hands the baton on. The operating system's
scheduler decides nothing, so the same events in the same order give the same run.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable

from mrc.sim.clock import FakeClock
from mrc.sim.kills import Killed

STACK_BYTES = 512 * 1024


class Process:
    """Whose events they are. A paused process's events wait until it goes on; a dead one's waits end with `Killed`.

    Attributes:
        paused_until_s: it stands still until then.
        dead: it never runs again.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.paused_until_s = float("-inf")
        self.dead = False


class _Baton:
    """Held by the one thread that runs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def give(self) -> None:
        self._lock.release()

    def wait(self) -> None:
        self._lock.acquire()


class _Waiting:
    """A stack that waits for its time."""

    def __init__(self) -> None:
        self.baton = _Baton()


_Event = tuple[float, int, Callable[[], None] | _Waiting, Process]


class Scheduler:
    """Runs events in the order of their times; those of one time in the order in which they were asked for.

    Attributes:
        now_s: virtual seconds since the beginning.
        events: how many were carried out.
    """

    def __init__(self) -> None:
        self.now_s = 0.0
        self.events = 0
        self._queue: list[_Event] = []
        self._order = itertools.count()
        self._world = Process("world")
        self._spares: list[_Baton] = []
        self._main = _Baton()
        self._until_s = 0.0
        self._closing = False
        self._failure: BaseException | None = None

    def at(self, at_s: float, act: Callable[[], None], process: Process | None = None) -> None:
        """Carry ``act`` out at a time; in the past means now."""
        self._push(max(at_s, self.now_s), act, process or self._world)

    def after(self, seconds: float, act: Callable[[], None], process: Process | None = None) -> None:
        """Carry ``act`` out later."""
        self._push(self.now_s + seconds, act, process or self._world)

    def sleep(self, seconds: float, process: Process | None = None) -> None:
        """Let the rest of the world go on for a while. Called within an act.

        Raises:
            Killed: the process died meanwhile, or the run is over.
        """
        owner = process or self._world
        self._still(owner)
        waiting = _Waiting()
        self._push(self.now_s + max(seconds, 0.0), waiting, owner)
        first = self._queue[0]
        if first[2] is waiting and first[0] <= self._until_s and owner.paused_until_s <= first[0]:
            heapq.heappop(self._queue)
            self.now_s = first[0]
        else:
            self._hand_on()
            waiting.baton.wait()
        self._still(owner)

    def run(self, until_s: float) -> None:
        """Carry out every event up to a time. An exception of an act ends the run and passes out of here."""
        self._until_s = until_s
        self._hand_on()
        self._main.wait()
        if self._failure is not None:
            raise self._failure
        self.now_s = max(self.now_s, until_s)

    def close(self) -> None:
        """End every stack that still waits."""
        self._closing = True
        waiting = [event for event in self._queue if isinstance(event[2], _Waiting)]
        self._queue.clear()
        for _, _, stack, _ in sorted(waiting, key=lambda event: event[:2]):
            if isinstance(stack, _Waiting):
                stack.baton.give()
                self._main.wait()
        while self._spares:
            self._spares.pop().give()
            self._main.wait()

    def _still(self, owner: Process) -> None:
        if self._closing or owner.dead:
            raise Killed(owner.name)

    def _push(self, at_s: float, act: Callable[[], None] | _Waiting, process: Process) -> None:
        heapq.heappush(self._queue, (at_s, next(self._order), act, process))

    def _hand_on(self) -> None:
        """Let another thread carry on with the events."""
        if self._spares:
            self._spares.pop().give()
        else:
            threading.Thread(target=self._carry_on, name="simulation", daemon=True).start()

    def _carry_on(self) -> None:
        """What each thread does that has the baton and no stack: the next event."""
        me = _Baton()
        while not self._closing:
            if self._failure is not None or not self._queue or self._queue[0][0] > self._until_s:
                self._stand_by(me, self._main)
                continue
            at_s, _, act, process = heapq.heappop(self._queue)
            self.now_s = at_s
            if process.paused_until_s > at_s:
                self._push(process.paused_until_s, act, process)
            elif isinstance(act, _Waiting):
                self._stand_by(me, act.baton)
            else:
                self._do(act)
        self._main.give()

    def _stand_by(self, me: _Baton, other: _Baton) -> None:
        self._spares.append(me)
        other.give()
        me.wait()

    def _do(self, act: Callable[[], None]) -> None:
        self.events += 1
        try:
            act()
        except Killed:
            return
        except BaseException as error:  # noqa: BLE001 - handed to the thread that asked for the run
            self._failure = error


class ScheduledClock(FakeClock):
    """One process's clock in a run of `Scheduler`: waiting lets the rest of the world go on.

    Attributes:
        ahead_ms: how far the wall clock is off; the monotonic one never jumps.
        grain_s: the shortest wait: a busy machine wakes nobody sooner.
    """

    def __init__(self, scheduler: Scheduler, process: Process | None = None, *, grain_s: float = 0.0) -> None:
        super().__init__()
        self._scheduler = scheduler
        self._process = process
        self.ahead_ms = 0
        self.grain_s = grain_s

    def now_ms(self) -> int:
        """See `Clock.now_ms`."""
        return int(self._began_ms + self._scheduler.now_s * 1000) + self.ahead_ms

    def monotonic_s(self) -> float:
        """See `Clock.monotonic_s`."""
        return self._scheduler.now_s

    def sleep(self, seconds: float) -> None:
        """See `Clock.sleep`."""
        self._scheduler.sleep(max(seconds, self.grain_s), self._process)

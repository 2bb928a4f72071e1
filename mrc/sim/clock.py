"""Time that passes only when somebody waits, and a hook that remembers its runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mrc.core.errors import MrcError


class FakeClock:
    """The port `Clock`; both of its clocks go forward together.

    Attributes:
        meanwhile: called after each sleep: what the rest of the world does while somebody waits.
    """

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self._now_ms = float(now_ms)
        self._began_ms = float(now_ms)
        self.meanwhile: Callable[[], None] = lambda: None

    def now_ms(self) -> int:
        """See `Clock.now_ms`."""
        return int(self._now_ms)

    def monotonic_s(self) -> float:
        """See `Clock.monotonic_s`."""
        return (self._now_ms - self._began_ms) / 1000

    def sleep(self, seconds: float) -> None:
        """See `Clock.sleep`; returns at once, later."""
        self._now_ms += max(seconds, 0) * 1000
        self.meanwhile()


class FakeHook:
    """The port `Hook`.

    Attributes:
        runs: the facts of each successful run, in order.
        failure: when not empty, why every run fails.
        failing: how many of the next runs fail.
        requests: method, address and facts of each request that somebody answered, in order.
        statuses: what an address answers; 200 where it is not named, and with 0 nobody is there.
    """

    def __init__(self) -> None:
        self.runs: list[dict[str, str]] = []
        self.failure = ""
        self.failing = 0
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.statuses: dict[str, int] = {}

    def run(self, argv: Sequence[str], facts: Mapping[str, str], timeout_s: float) -> str:
        """See `Hook.run`."""
        where = argv[0] if argv else ""
        if self.failure:
            raise MrcError("HOOK_FAILED", self.failure, where=where)
        if self.failing:
            self.failing -= 1
            raise MrcError("HOOK_FAILED", "exit code 1: not yet", where=where)
        self.runs.append(dict(facts))
        return ""

    def send(self, method: str, url: str, facts: Mapping[str, str], timeout_s: float) -> str:
        """See `Hook.send`."""
        status = self.statuses.get(url, 200)
        if not url.startswith(("http://", "https://")) or not status:
            raise MrcError("HOOK_FAILED", "nobody is there", where=url, retryable=not status)
        self.requests.append((method, url, {} if method == "GET" else dict(facts)))
        if not 200 <= status < 300:
            raise MrcError("HOOK_FAILED", f"status {status}", where=url, retryable=status >= 500)
        return ""

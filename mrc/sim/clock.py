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
    """

    def __init__(self) -> None:
        self.runs: list[dict[str, str]] = []
        self.failure = ""

    def run(self, argv: Sequence[str], facts: Mapping[str, str], timeout_s: float) -> str:
        """See `Hook.run`."""
        if self.failure:
            raise MrcError("HOOK_FAILED", self.failure, where=argv[0] if argv else "")
        self.runs.append(dict(facts))
        return ""

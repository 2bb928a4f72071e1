"""Points in time on the command line, and how long things take."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

import click

_UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}

_FIRST_MS, _LAST_MS = -62_135_596_800_000, 253_402_300_799_999
"""The beginning of the year 1 and the end of the year 9999. A clock may be behind it: headers hold 48 bits, what others write 64."""


class Since(click.ParamType[int]):
    """``15m``, ``2h``, ``7d`` ago, or an ISO 8601 time (UTC where it names no zone); the value is in milliseconds since the epoch."""

    name = "TIME"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the point in time; neither before 1970 nor in the future."""
        if isinstance(value, int):
            return value
        now_ms = int(time.time() * 1000)
        ago = re.fullmatch(r"(\d{1,9})([smhd])", value)
        if ago:
            return max(0, now_ms - int(ago[1]) * _UNITS_MS[ago[2]])
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is neither how long ago (90s, 15m, 2h, 7d) nor a time (2026-01-31T12:00:00Z)", param, ctx)
        at_ms = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
        if not 0 <= at_ms <= now_ms:
            self.fail(f"{value!r} is before 1970 or in the future", param, ctx)
        return at_ms


SINCE_HELP = "15m, 2h or 7d ago, or a time such as 2026-01-31T12:00:00Z."


def moment(at_ms: int) -> str:
    """Return a point in time as people read it, in UTC; one that no calendar here reaches in milliseconds."""
    if not _FIRST_MS <= at_ms <= _LAST_MS:
        return f"{at_ms} ms"
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


class Spoken:
    """Says on stderr how far a reading is: once a second, and nothing of one that takes less."""

    def __init__(self) -> None:
        self._say_at_s = time.monotonic() + 1.0

    def __call__(self, done: int, total: int) -> None:
        """Take how many offsets were read, and of how many."""
        if time.monotonic() >= self._say_at_s:
            self._say_at_s = time.monotonic() + 1.0
            click.echo(f"read {done:,} of {total:,} records", err=True)

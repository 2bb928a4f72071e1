"""Waiting for what real servers do by themselves and fakes do when they are told."""

from __future__ import annotations

import time
from collections.abc import Callable


def eventually(turn: Callable[[], None], reached: Callable[[], bool], *, within_s: float = 30) -> None:
    """Take turns until ``reached``, or fail."""
    until_s = time.monotonic() + within_s
    while not reached():
        if time.monotonic() > until_s:
            raise AssertionError(f"not reached within {within_s} s")
        turn()

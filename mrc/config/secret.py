"""Secrets: a type that does not show itself, read from the files that settings name."""

from __future__ import annotations

from pathlib import Path

from mrc.core.errors import MrcError


class Secret:
    """A password that does not show itself: `str`, `repr` and logs see a mask, only `reveal` gives the text."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text; hand it to a driver and keep it nowhere."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(****)"


def read_secret(path: Path) -> Secret:
    """Return what the file holds, without the ends of its last line. Raises ``CONFIG_INVALID``."""
    try:
        return Secret(path.read_text(encoding="utf-8").rstrip("\r\n"))
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise MrcError("CONFIG_INVALID", f"the file cannot be read: {why}", where=str(path)) from None

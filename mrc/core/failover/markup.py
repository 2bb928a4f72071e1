"""HTML and SVG made from values: whatever is not markup made here is escaped, so that no text can become any.

`Markup` is only made by `element` and `joined`; a plain string in their place is text. Characters that nobody can see, or that
change how others are read (control characters, overrides of the writing direction), are written out.
"""

from __future__ import annotations

import html
from collections.abc import Iterable


class Markup(str):
    """A string that is HTML already."""

    __slots__ = ()


VOID = frozenset({"meta", "br"})
"""Elements without an end tag."""


def text(value: str) -> Markup:
    """Return text as it may stand anywhere in a document, an attribute's value included."""
    return Markup(html.escape(visible(value), quote=True))


def visible(value: str) -> str:
    """Return text with every character that would not be seen written as an escape; lines stay lines."""
    if value.isprintable():
        return value
    return "".join(one if one.isprintable() or one == "\n" else one.encode("unicode_escape").decode() for one in value)


def element(name: str, /, *children: str, **attributes: str | float) -> Markup:
    """Return an element; ``_`` in an attribute's name stands for ``-``, one at its end for nothing; numbers are written short."""
    given = "".join(f' {key.rstrip("_").replace("_", "-")}="{text(_short(value))}"' for key, value in attributes.items())
    if name in VOID:
        return Markup(f"<{name}{given}>")
    return Markup(f"<{name}{given}>{joined(children)}</{name}>")


def joined(children: Iterable[str]) -> Markup:
    """Return children one behind the other; strings that are no markup become text."""
    return Markup("".join(child if isinstance(child, Markup) else text(child) for child in children))


def _short(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.2f}".rstrip("0").rstrip(".")

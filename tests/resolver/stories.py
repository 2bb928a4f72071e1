"""Stories in two regions, lived again and again with a death at another effect each time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from mrc.resolver.deciding import LEAD_MS
from tests.resolver.dying import Death, Point
from tests.resolver.scripted import EAST, KEYS, WEST, Scripted, Wrongly, rightly


def rules_change(world: Scripted) -> None:
    """East gets other rules, then west; in between east's machine is replaced. Then both go back."""
    first, second = world.versions
    world.at(10)
    for key in KEYS:
        world.put(EAST, key, "Placed")
    world.settle()
    world.at(50)
    world.put(EAST, "17", "Cancelled")
    world.put(WEST, "17", "Shipped", seen=True, amount=3)
    world.put(EAST, "18", "")
    world.put(EAST, "19", "Refunded", note="east")
    world.put(WEST, "19", "Cancelled", seen=True)
    world.settle()
    world.at(90)
    world.restart(EAST, second)
    world.put(WEST, "22", "NoteAdded", seen=True, note="meanwhile")
    world.until_file(EAST, second)
    world.at(130)
    world.put(EAST, "20", "Cancelled", amount=1, note="east")
    world.put(WEST, "20", "Shipped", seen=True, amount=2)
    world.put(WEST, "18", "NoteAdded", late_s=100, note="late")
    world.put(WEST, "21", "NoteAdded", kind=None, seen=True)
    world.put(EAST, "22", "Shipped", kind="Delivered", note="east")
    world.until_marked()
    world.restart(EAST, second, disk="lost")
    world.until_marked()
    world.at(170)
    world.restart(WEST, second, disk="foreign")
    world.until_file(WEST, second)
    world.settle()
    world.at(210)
    world.put(EAST, "21", "Shipped", seen=True, note="a")
    world.put(WEST, "21", "Cancelled", kind="Delivered", seen=True, note="b")
    world.settle()
    world.at(250)
    world.restart(WEST, first)
    world.until_file(WEST, first)
    world.at(290)
    world.put(EAST, "17", "Placed", seen=True)
    world.put(WEST, "17", "Cancelled", seen=True)
    world.until_marked()
    world.restart(EAST, first)
    world.until_file(EAST, first)
    world.settle()


def people_decide(world: Scripted) -> None:
    """One conflict is decided, one twice over a cut link, one for nobody; one is superseded, one by a late event; two wait too long."""
    world.at(10)
    for key in KEYS:
        world.put(EAST, key, "Placed")
    world.settle()
    world.at(50)
    for key in KEYS:
        world.put(EAST, key, "Refunded", amount=1)
        world.put(WEST, key, "" if key in ("17", "22") else "Shipped", seen=True)
    world.settle()
    asked = {key: world.open_conflict(WEST, key) for key in KEYS}
    world.at(90)
    world.lagging = True
    for key in KEYS[2:4]:
        world.put(EAST, key, "Refunded", amount=2)
    world.until_marked()
    world.at(110)
    world.give(EAST, asked["17"], WEST, "for-west")
    world.until_marked(LEAD_MS)
    world.lagging = False
    world.settle()
    world.at(130)
    world.cut = True
    world.give(EAST, asked["18"], WEST, "earlier")
    world.until_marked(LEAD_MS)
    world.at(150)
    world.give(WEST, asked["18"], EAST, "later")
    world.until_marked(LEAD_MS)
    world.restart(WEST, world.versions[0], disk="lost")
    world.until_marked()
    world.cut = False
    world.settle()
    world.at(190)
    world.put(EAST, "19", "NoteAdded", seen=True)
    world.put(WEST, "20", "NoteAdded", late_s=60)
    world.give(WEST, asked["21"], "nobody", "for-nobody")
    world.settle(LEAD_MS)
    world.at(230)
    world.give(WEST, asked["19"], WEST, "too-late")
    world.settle(LEAD_MS)
    world.at(300)
    world.settle()
    world.at(340)
    world.give(EAST, asked["21"], EAST, "out-of-time")
    world.settle(LEAD_MS)


def file_taken_back(world: Scripted) -> None:
    """Both regions get other rules, and east soon has the earlier ones again, and so has west; later both get the others."""
    first, second = world.versions
    world.at(10)
    for key in KEYS[:3]:
        world.put(EAST, key, "Placed")
    world.settle()
    world.at(110)
    world.restart(WEST, second)
    world.until_file(WEST, second)
    world.restart(EAST, second)
    for _ in range(4):
        world.work()
    for region in (EAST, WEST):
        world.restart(region, first)
        world.until_file(region, first)
    world.at(510)
    world.put(EAST, "17", "Cancelled")
    world.put(WEST, "17", "Shipped", seen=True, amount=3)
    world.settle()
    world.at(610)
    for region in (EAST, WEST):
        world.restart(region, second)
        world.until_file(region, second)
    world.at(910)
    world.put(EAST, "18", "Cancelled", note="east")
    world.put(WEST, "18", "Shipped", seen=True, amount=3)
    world.settle()


class Story(NamedTuple):
    """What is told, and of how long whoever dies in it may be away: as long as its times allow."""

    tell: Callable[[Scripted], None]
    away: tuple[int, ...] = (0, 1, 4)


STORIES = {
    "rules change": Story(rules_change),
    "people decide": Story(people_decide),
    "a file is taken back": Story(file_taken_back, (0, 100)),
}


def lived(story: Story, kind: type[Scripted], death: Death | None = None, wrongly: Wrongly = rightly) -> Scripted:
    """Live a story to its end."""
    world = kind(death, wrongly)
    story.tell(world)
    return world


def deaths(story: Story, points: Sequence[Point]) -> list[Death]:
    """Return every death of a story that says anything new: simply, with the disk lost, and dying again; the delays go round."""
    found = []
    for number, point in enumerate({point.left: point for point in reversed(points)}.values()):
        away, again = story.away[number % len(story.away)], (1, 3, 7, 20)[number % 4]
        found += [
            Death(point.at, point.how),
            Death(point.at, point.how, disk=False, away=away),
            Death(point.at, point.how, disk=number % 2 == 0, away=story.away[-1 - number % len(story.away)], again=again),
        ]
    return found

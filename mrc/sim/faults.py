"""What happens in a run: a list made from the seed alone before it begins, so that any part of it can be left out."""

from __future__ import annotations

import random

import msgspec

from mrc.core.model import Region
from mrc.sim.world import EAST, WEST

CHAOS_S = 34.0
"""How long things happen; after that everything is healed and has to come to rest."""

SELF_FENCE_AFTER_S = 5.0
"""After how long without a majority agents refuse writes, in the runs in which they do: longer than their sessions last, by little."""

AGENTS = ("east-a", "east-b", "west-a", "west-b")

_FAULTS = {
    "crash": 6,
    "pause": 6,
    "crash-pair": 2,
    "lose-replies": 4,
    "no-quorum": 2,
    "agent-cut": 3,
    "agent-off": 3,
    "region-cut": 2,
    "region-kill": 2,
    "connect-down": 3,
    "mm2-restart": 4,
    "slow-stop": 2,
    "clock-jump": 3,
    "transaction": 6,
    "acls-late": 4,
    "fence-removed": 2,
    "group-idle": 2,
    "group-stays": 1,
    "trim": 2,
    "abort": 2,
}
"""Kinds and their weights."""


class Happening(msgspec.Struct, frozen=True, omit_defaults=True):
    """One fault, or one act of an operator.

    Attributes:
        at_s: when.
        kind: a key of `_FAULTS`, ``switchover``, ``failover`` or ``fence``.
        where: a region, an agent or a group.
        for_s: how long.
        calls: at which of the next calls of the agent.
        flag: acts only (crash, pause); truncated (region-kill); the source may live (failover); the transaction aborts.
        after: after the call instead of before it; a failover for which nobody answers (failover).
    """

    at_s: float
    kind: str
    where: str = ""
    for_s: float = 0.0
    calls: int = 0
    flag: bool = False
    after: bool = False

    def __str__(self) -> str:
        how = [f"{self.where}" if self.where else "", f"for {self.for_s:.1f} s" if self.for_s else ""]
        how += [f"at its call {self.calls}" if self.calls else "", "(flag)" if self.flag else "", "(after)" if self.after else ""]
        return " ".join([f"{self.at_s:.2f} s: {self.kind}", *(word for word in how if word)])


def self_fence_after_s(seed: int) -> float | None:
    """Return the setting of the run of a seed: in half of them agents refuse writes where they hear no majority."""
    return SELF_FENCE_AFTER_S if random.Random(f"self-fence {seed}").random() < 0.5 else None


def happenings(seed: int) -> tuple[Happening, ...]:
    """Return what happens in the run of a seed, by time."""
    rng = random.Random(f"happenings {seed}")
    found: list[Happening] = []
    at_s = rng.uniform(3.0, 8.0)
    if self_fence_after_s(seed) is not None and rng.random() < 0.5:
        found += _silence(rng, at_s)
        at_s = rng.uniform(at_s, CHAOS_S - 8)
    while at_s < CHAOS_S - 8:
        found += _move(rng, at_s)
        at_s += rng.uniform(6.0, 20.0)
    kinds, weights = list(_FAULTS), list(_FAULTS.values())
    for kind in rng.choices(kinds, weights, k=rng.choice((0, 1, 2, 3, 4, 6, 9))):
        # Half of them in the seconds after a move has begun, when most is at stake.
        begun_s = rng.choice(found).at_s
        when_s = begun_s + rng.uniform(-0.5, 5.0) if rng.random() < 0.6 else rng.uniform(1.0, CHAOS_S - 3)
        found.append(_fault(rng, kind, min(max(0.5, when_s), CHAOS_S - 1)))
    return tuple(sorted(found, key=lambda one: (one.at_s, one.kind, one.where)))


def _move(rng: random.Random, at_s: float) -> list[Happening]:
    """Return a move: planned, a fence, unplanned after a death, or unplanned while the source lives."""
    kind = rng.choices(("switchover", "fence", "death", "failover"), (6, 2, 3, 1))[0]
    if kind in ("switchover", "fence"):
        return [Happening(at_s, kind)]
    if kind == "failover":
        return [Happening(at_s, "failover", flag=True)]
    fault = rng.choice(("region-kill", "region-kill", "region-cut"))
    died = Happening(at_s, fault, "active", for_s=rng.uniform(5.0, 16.0), flag=fault == "region-kill" and rng.random() < 0.2)
    return [died, Happening(at_s + rng.uniform(0.5, 4.0), "failover")]


def _silence(rng: random.Random, at_s: float) -> list[Happening]:
    """Return a time without a majority, longer than the open region's agents take to fence it, and a failover that counts on that."""
    fault = rng.choice(("region-cut", "region-cut", "no-quorum"))
    quiet = Happening(at_s, fault, "active" if fault == "region-cut" else "", for_s=rng.uniform(14.0, CHAOS_S - at_s))
    if fault == "no-quorum":
        return [quiet]
    return [quiet, Happening(at_s + rng.uniform(8.0, 16.0), "failover", after=True)]


def _fault(rng: random.Random, kind: str, at_s: float) -> Happening:
    agent = rng.choice((*AGENTS, "leader-of-target", "leader-of-target", "leader-of-source"))
    region = rng.choice((EAST, WEST))
    flag, after, calls = rng.random() < 0.5, rng.random() < 0.5, rng.randint(1, 60)
    seldom = rng.random() < 0.2
    few = 1 + calls // 4 if flag else calls
    pause_s = rng.choice((rng.uniform(0.5, 3.0), rng.uniform(4.5, 15.0)))
    long_s, short_s = rng.uniform(2.0, 15.0), rng.uniform(0.5, 9.0)
    made = {
        "crash": Happening(at_s, kind, agent, long_s, few, flag, after),
        "pause": Happening(at_s, kind, agent, pause_s, few, flag, after),
        "lose-replies": Happening(at_s, kind, agent, calls=1 + calls % 3),
        "agent-cut": Happening(at_s, kind, f"{rng.choice(AGENTS)}/{region}", long_s, flag=flag),
        "agent-off": Happening(at_s, kind, agent, short_s),
        "no-quorum": Happening(at_s, kind, for_s=short_s),
        "region-kill": Happening(at_s, kind, region, long_s, flag=seldom),
        "transaction": Happening(at_s, kind, rng.choice(("active", "active", EAST, WEST)), long_s, flag=seldom),
        "clock-jump": Happening(at_s, kind, agent, calls=rng.choice((-1, 1)) * rng.randint(1_000, 7_200_000)),
        "acls-late": Happening(at_s, kind, rng.choice(("active", region)), 1.0 + long_s / 4, calls=calls % 2),
        "group-idle": Happening(at_s, kind, rng.choice(("billing", "shipping")), 2 * long_s),
        "group-stays": Happening(at_s, kind, rng.choice(("billing", "shipping")), 2 * long_s),
    }
    return made.get(kind, Happening(at_s, kind, region, short_s, flag=flag))


def region_of(agent: str) -> Region:
    """Return the region that an agent of this name is in."""
    return Region(agent.partition("-")[0])

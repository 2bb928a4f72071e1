"""Resolvers of all regions decide alike and as the oracle does, whatever the links, the clocks and the deaths between."""

from __future__ import annotations

import os
import random

import pytest

from tests.resolver.world import Killed, World, dying

SEEDS = max(40, int(os.environ.get("MRC_CONFLICT_HISTORIES", "20000")) // 50)
"""Worlds; each has three histories in each region."""


def judge(seed: int) -> str:
    world = World(seed)
    choose = random.Random(seed + 1)
    for site in world.sites.values():
        site.cluster.before = dying(choose, 0.03)
        site.cluster.after = dying(choose, 0.03)
    for _ in range(choose.randrange(10, 200)):
        world.step()
        if choose.random() < 0.03:
            region = choose.choice(world.regions)
            site = world.sites[region]
            if "b" in site.resolvers:
                site.stop("b")
            else:
                site.start("b")
    for site in world.sites.values():
        site.cluster.before = site.cluster.after = lambda effect: None
    world.heal()
    return f"seed {seed}: {wrong}" if (wrong := world.wrong()) else ""


def test_all_regions_decide_alike_and_as_the_oracle_does() -> None:
    assert [words for seed in range(SEEDS) if (words := judge(seed))][:3] == []

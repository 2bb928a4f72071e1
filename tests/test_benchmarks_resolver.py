"""The resolver benchmark's own judgement: what is measured of whom, and that a missed aim is said."""

from __future__ import annotations

import itertools
import random
import re
from typing import Any

import msgspec
import pytest

from benchmarks.resolver import EAST, PEER, WEST, compared, merged, missed, peer_figures, told
from benchmarks.setting import ROOT, kafka_version
from mrc.config.conflicts import load_conflicts


def figures(**changes: float) -> dict[str, float]:
    met = {"mrc_events_per_s": 50_000, "ratio": 2.0, "core_events_per_s": 300_000, "restore_s": 19.9, "rss_mb": 499}
    return {**met, **changes}


def test_a_missed_aim_is_said() -> None:
    assert missed(figures()) == []
    for name, value in {"mrc_events_per_s": 49_999, "ratio": 1.99, "core_events_per_s": 299_999, "restore_s": 20.0, "rss_mb": 500}.items():
        assert missed(figures(**{name: value})) == [name]
    assert missed({"mrc_events_per_s": 1, "restore_s": 1.0}) == ["mrc_events_per_s"]


def test_of_the_peers_runs_the_quickest_one_is_compared_with() -> None:
    peers = {
        1: {"kstreams_events_per_s": 20_000, "kstreams_cpu_s_per_million": 40.0},
        2: {"kstreams_events_per_s": 25_000, "kstreams_cpu_s_per_million": 50.0},
    }
    found = compared({"mrc_events_per_s": 30_000}, peers)
    assert found == {"mrc_events_per_s": 30_000, **peers[2], "kstreams_threads": 2, "ratio": 1.2}


def test_the_peer_says_how_long_it_took() -> None:
    assert peer_figures("noise\nseconds 150000 6.000 9.000\n") == {"kstreams_events_per_s": 25_000, "kstreams_cpu_s_per_million": 60.0}
    with pytest.raises(SystemExit):
        peer_figures("noise\n")


def test_the_peer_is_of_the_brokers_version() -> None:
    assert re.findall("<kafka.version>(.*)</kafka.version>", (PEER / "pom.xml").read_text()) == [kafka_version()]


def test_events_are_the_same_in_every_run_and_some_have_seen_nothing() -> None:
    found = list(told(random.Random(1), 2_000, 0, 1_000))
    assert [event.id for _, event, _ in found] == [event.id for _, event, _ in told(random.Random(1), 2_000, 0, 1_000)]
    assert {event.origin for _, event, _ in found} == {EAST, WEST}
    assert 0.05 < sum(not event.seen for _, event, _ in found) / len(found) < 0.15
    assert all(before.hlc < after.hlc for (_, before, _), (_, after, _) in itertools.pairwise(found))
    assert all(120 <= len(value) <= 180 for *_, value in found)
    body: dict[str, Any] = msgspec.json.decode(found[0][2])
    assert (body["event"], body["amount"]) == (found[0][1].type, found[0][1].fields["amount"])


def test_the_merge_is_timed_by_the_rules_of_the_example() -> None:
    assert merged(load_conflicts(ROOT / "docs" / "examples" / "conflicts.yaml")[0].rules, 2_000) > 1_000

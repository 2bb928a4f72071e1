"""``mrc offsets`` on real Kafka and MirrorMaker 2: what operators look at, and what they do by hand when nothing else runs.

Groups are judged by the records themselves: an independent consumer reads both logs around each position.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient

from mrc.sandbox.layout import Options
from mrc.sandbox.traffic import Traffic
from mrc.sandbox.world import Sandbox
from tests.e2e.running import IN_TIME_S, eventually, mrc, ready, refusal, said, state

pytestmark = pytest.mark.server

Rows = dict[tuple[str, int], dict[str, Any]]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """Traffic has run and stopped: billing has read all, shipping stands somewhere in the middle."""
    folder = state("offsets")
    made = Sandbox(folder)
    try:
        made.up(Options())
        made.start_agents()
        traffic = Traffic(folder, folder / "traffic")
        traffic.start(500.0, groups={"billing": 0.0})
        ready(made, "west")
        assert traffic.wait_acked(3_000, 60.0)
        traffic.stop_producers()
        assert traffic.drain(IN_TIME_S)
        traffic.stop()
        spread(made, "shipping")
        settled(made)
        yield made
    finally:
        made.down()


def admin(sandbox: Sandbox, region: str) -> AdminClient:
    return AdminClient(dict(sandbox.client_config(region, "admin")))


def tps(sandbox: Sandbox) -> list[tuple[str, int]]:
    return sorted((row["topic"], row["partition"]) for row in said(sandbox, "offsets", "show", "billing"))


def ends(sandbox: Sandbox, region: str) -> dict[tuple[str, int], int]:
    consumer = Consumer({**sandbox.client_config(region, "admin"), "group.id": "test-offsets"})
    try:
        return {tp: consumer.get_watermark_offsets(TopicPartition(*tp), timeout=60)[1] for tp in tps(sandbox)}
    finally:
        consumer.close()


def commit(sandbox: Sandbox, region: str, group: str, positions: dict[tuple[str, int], int]) -> None:
    rows = [TopicPartition(topic, partition, offset) for (topic, partition), offset in positions.items()]
    client = admin(sandbox, region)  # is needed until it has answered
    asked = client.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, rows)], request_timeout=60)
    for future in asked.values():
        assert all(row.error is None for row in future.result(timeout=60).topic_partitions)


def committed(sandbox: Sandbox, region: str, group: str) -> dict[tuple[str, int], int]:
    client = admin(sandbox, region)
    asked = client.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)], request_timeout=60)
    rows = asked[group].result(timeout=60).topic_partitions
    return {(row.topic, row.partition): row.offset for row in rows if row.offset >= 0}


def spread(sandbox: Sandbox, group: str) -> None:
    """Let a group stand at another place on each partition; on one nowhere."""
    wanted = {tp: end * (n + 1) // 9 for n, (tp, end) in enumerate(ends(sandbox, "east").items())}
    wanted.pop(max(wanted))
    commit(sandbox, "east", group, wanted)


def settled(sandbox: Sandbox) -> None:
    """Wait until mrc answers exactly for what is committed now."""

    def answered() -> bool:
        rows = said(sandbox, "offsets", "list")
        found = {(r["group"], r["topic"], r["partition"]): r for r in rows if r["translation"]["type"] == "exact"}
        wanted = {(g, *tp): offset for g in ("billing", "shipping") for tp, offset in committed(sandbox, "east", g).items()}
        return bool(wanted) and all(key in found and found[key]["source_offset"] == offset for key, offset in wanted.items())

    eventually(answered, lambda: mrc(sandbox, "offsets", "list", output="table").stdout)


def event_at(sandbox: Sandbox, region: str, tp: tuple[str, int], offset: int) -> bytes | None:
    """Return the value of the first visible record at or after an offset; None at the end."""
    consumer = Consumer(
        {
            **sandbox.client_config(region, "admin"),
            "group.id": "test-offsets",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
        }
    )
    try:
        consumer.assign([TopicPartition(*tp, offset)])
        until_s = time.monotonic() + IN_TIME_S
        while time.monotonic() < until_s:
            message = consumer.poll(0.5)
            if message is not None:
                return None if message.error() else message.value()
        raise AssertionError(f"{region} {tp} says nothing")
    finally:
        consumer.close()


def test_show_names_the_same_next_record_in_both_regions(sandbox: Sandbox) -> None:
    rows = said(sandbox, "offsets", "show", "shipping")
    known = [row for row in rows if row["source_offset"]["type"] == "known"]
    assert len(known) == len(rows) - 1
    assert len({row["source_offset"]["value"] for row in known}) > 3
    for row in known:
        tp = (row["topic"], row["partition"])
        here = event_at(sandbox, "east", tp, int(row["source_offset"]["value"]))
        assert here is not None
        assert here == event_at(sandbox, "west", tp, int(row["safe_offset"]["value"]))


def test_live_sync_keeps_what_show_says_committed_in_the_standby(sandbox: Sandbox) -> None:
    def kept() -> bool:
        rows = said(sandbox, "offsets", "show", "shipping")
        return all(r["committed"].get("value") == r["safe_offset"]["value"] for r in rows if r["safe_offset"]["type"] == "known")

    eventually(kept)
    wanted = {
        (r["target_topic"], r["partition"]): int(r["safe_offset"]["value"])
        for r in said(sandbox, "offsets", "show", "shipping")
        if r["safe_offset"]["type"] == "known"
    }
    assert committed(sandbox, "west", "shipping") == wanted


def test_explain_sets_the_two_records_side_by_side_and_counts_what_mirrormaker_would_read_again(sandbox: Sandbox) -> None:
    found = said(sandbox, "offsets", "explain", "shipping")
    chosen = [one for one in found if one["translation"]["type"] == "exact"]
    assert chosen
    rereads = 0
    for one in chosen:
        assert one["next_alike"]
        assert one["before_alike"] or not one["source"]["before"]
        assert one["source"]["next"][0]["value"] == one["target"]["next"][0]["value"]
        if one["mm2"]["rereads"]["type"] == "known":
            offset, safe = int(one["mm2"]["offset"]["value"]), one["translation"]["offset"]
            assert one["mm2"]["rereads"]["value"] == max(0, safe - offset)
            rereads += int(one["mm2"]["rereads"]["value"])
    assert rereads > 0, "MirrorMaker is exact here: the comparison shows nothing"
    text = mrc(sandbox, "offsets", "explain", "shipping", "--topic", chosen[0]["source"]["topic"], "--partition", "0", output="table")
    assert text.returncode == 0
    assert "MirrorMaker" in text.stdout


def test_verify_reads_both_sides_anew_and_agrees(sandbox: Sandbox) -> None:
    done = mrc(sandbox, "offsets", "verify")
    assert done.returncode == 0, done.stdout


def test_diff_finds_the_group_that_was_put_beyond_what_it_has_read(sandbox: Sandbox) -> None:
    assert mrc(sandbox, "offsets", "diff").returncode == 0
    tp = tps(sandbox)[0]
    beyond = ends(sandbox, "west")[tp]
    consumer = Consumer({**sandbox.client_config("west", "admin"), "group.id": "shipping", "enable.auto.commit": False})
    try:
        consumer.subscribe([tp[0]])  # a member: mrc leaves the group alone now

        def joined() -> bool:
            consumer.poll(0.1)
            return bool(consumer.assignment())

        eventually(joined)
        consumer.commit(offsets=[TopicPartition(*tp, beyond)], asynchronous=False)
        done = mrc(sandbox, "offsets", "diff", "--group", "shipping")
        assert done.returncode == 3, done.stdout
        refused = refusal(mrc(sandbox, "offsets", "apply", "--group", "shipping", "--yes"))
        assert refused["code"] == "GROUP_HAS_MEMBERS"
    finally:
        consumer.close()
    applied = mrc(sandbox, "offsets", "apply", "--group", "shipping", "--yes")
    assert applied.returncode == 3, applied.stderr  # one partition has no position
    assert mrc(sandbox, "offsets", "diff", "--group", "shipping").returncode == 0
    assert committed(sandbox, "west", "shipping")[tp] < beyond


def test_a_file_of_positions_is_translated_both_ways_and_comes_back_to_where_it_was(sandbox: Sandbox, tmp_path: Path) -> None:
    places = [
        {"region": "east", "topic": topic, "partition": partition, "offset": offset}
        for (topic, partition), offset in committed(sandbox, "east", "shipping").items()
    ]
    there = translated(sandbox, tmp_path / "there.jsonl", places)
    answers = [{**p, "region": "west", "offset": a["translation"]["offset"]} for p, a in zip(places, there, strict=True)]
    back = translated(sandbox, tmp_path / "back.jsonl", answers)
    assert [a["translation"]["offset"] for a in back] == [p["offset"] for p in places]


def translated(sandbox: Sandbox, file: Path, places: list[dict[str, Any]]) -> list[dict[str, Any]]:
    file.write_text("".join(json.dumps(place) + "\n" for place in places))
    done = mrc(sandbox, "offsets", "translate", "--file", str(file))
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_what_group_offsets_do_not_move_is_listed(sandbox: Sandbox) -> None:
    commit(sandbox, "east", "stranger", {tps(sandbox)[0]: 1})
    found = said(sandbox, "offsets", "unmovable")
    assert {"stranger": "not-configured", "shipping": "no-position"}.items() <= {one["group"]: one["kind"] for one in found}.items()


def test_checkpoints_of_a_group_that_is_there_are_not_forgotten(sandbox: Sandbox) -> None:
    assert refusal(mrc(sandbox, "offsets", "forget", "--group", "billing", "--yes"))["code"] == "GROUP_HAS_POSITIONS"


def test_a_group_that_was_deleted_in_the_active_region_takes_its_checkpoints_along_and_leaves_the_others(sandbox: Sandbox) -> None:
    """Committed minutes ago, its positions cannot have expired: somebody deleted them."""
    shipping = [row for row in said(sandbox, "offsets", "list") if row["group"] == "shipping"]
    assert said(sandbox, "offsets", "list", "--group", "billing")
    client = admin(sandbox, "east")
    client.delete_consumer_groups(["billing"], request_timeout=60)["billing"].result(timeout=60)
    eventually(lambda: {row["group"] for row in said(sandbox, "offsets", "list")} == {"shipping"})
    sandbox.stop_agents("west")
    sandbox.start_agents("west")  # withdrawn from the topic too: agents that know nothing yet do not find them there
    eventually(lambda: mrc(sandbox, "offsets", "list").returncode == 0)
    settled(sandbox)
    kept = [row for row in said(sandbox, "offsets", "list") if row["group"] == "shipping"]
    assert [(r["topic"], r["partition"], r["translation"]["offset"]) for r in kept] == [
        (r["topic"], r["partition"], r["translation"]["offset"]) for r in shipping
    ]
    assert {row["group"] for row in said(sandbox, "offsets", "list")} == {"shipping"}


def test_without_any_agent_positions_are_exported_and_committed_by_hand(sandbox: Sandbox, tmp_path: Path) -> None:
    """The last test of this sandbox: no agent is left, nor the source."""
    wanted = {
        (r["target_topic"], r["partition"]): int(r["safe_offset"]["value"])
        for r in said(sandbox, "offsets", "show", "shipping")
        if r["safe_offset"]["type"] == "known"
    }
    sandbox.kill("east")
    for name in ("west-a", "west-b"):
        sandbox.kill_agent(name)
    commit(sandbox, "west", "shipping", dict.fromkeys(wanted, 0))
    file = tmp_path / "positions.json"
    exported = mrc(sandbox, "offsets", "export", "--direct", "--region", "west", "--group", "shipping", str(file))
    assert exported.returncode == 0, exported.stderr
    shown = mrc(sandbox, "offsets", "import", "--direct", "--dry-run", "--region", "west", str(file))
    assert shown.returncode == 0, shown.stderr
    assert committed(sandbox, "west", "shipping") == dict.fromkeys(wanted, 0)
    done = mrc(sandbox, "offsets", "import", "--direct", "--region", "west", "--yes", str(file))
    assert done.returncode == 0, done.stderr
    assert committed(sandbox, "west", "shipping") == wanted
    file.write_text(file.read_text().replace('"offset"', '"offsets"', 1))
    garbled = mrc(sandbox, "offsets", "import", "--direct", "--region", "west", "--yes", str(file))
    assert refusal(garbled)["code"] == "POSITIONS_INVALID"

"""The traffic's logs survive what happens to the processes that write them."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from mrc.sandbox.traffic_log import Acked, Event, InDoubt, Line, Logs, LogWriter, Processed, Turn, decode_event, encode_event
from mrc.sandbox.traffic_producer import Orders

LINES: list[Line] = [
    Acked(1.5, "east", 1, "orders", 0, 7, "k", 3, "r-1", resent=True),
    InDoubt(1.6, "east", 1, "orders", "k", 4, "r-2", "_TIMED_OUT"),
    Processed(1.7, "west", 2, "billing", "orders", 0, 9, "r-1"),
    Turn(1.8, "billing", "west", 2, "started"),
]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    log = LogWriter(tmp_path / "a.jsonl")
    for line in LINES:
        log.write(line)
    log.close()
    logs = Logs(tmp_path).refresh()
    assert [*logs.acked, *logs.in_doubt, *logs.processed, *logs.turns] == LINES


def test_nothing_is_read_before_it_is_flushed_and_nothing_twice(tmp_path: Path) -> None:
    log = LogWriter(tmp_path / "a.jsonl")
    logs = Logs(tmp_path)
    log.write(LINES[0])
    assert logs.refresh().acked == []
    log.flush()
    assert len(logs.refresh().acked) == 1
    assert len(logs.refresh().acked) == 1
    log.write(LINES[0])
    log.close()
    assert len(logs.refresh().acked) == 2


def test_a_torn_last_line_counts_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    whole = msgspec.json.encode(LINES[0]) + b"\n"
    path.write_bytes(whole + whole[:10])
    logs = Logs(tmp_path)
    assert len(logs.refresh().acked) == 1
    path.write_bytes(whole + whole)
    assert len(logs.refresh().acked) == 2


def test_a_line_of_somebody_else_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'["guessed",1]\n')
    with pytest.raises(msgspec.DecodeError):
        Logs(tmp_path).refresh()


def test_records_that_are_no_events_are_told_apart() -> None:
    event = Event("r-1", "k", 0, 100, 1.0)
    assert decode_event(encode_event(event)) == event
    assert decode_event(b"not json") is None
    assert decode_event(b"{}") is None
    assert decode_event(None) is None


def test_orders_number_each_key_of_each_topic_without_gaps_and_never_repeat_an_id() -> None:
    orders = Orders("r", ["orders", "payments"])
    made = [orders.make() for _ in range(5_000)]
    assert len({event.id for _, event in made}) == len(made)
    seqs: dict[tuple[str, str], list[int]] = {}
    for topic, event in made:
        seqs.setdefault((topic, event.key), []).append(event.seq)
    assert all(found == list(range(len(found))) for found in seqs.values())
    assert {topic for topic, _ in made} == {"orders", "payments"}

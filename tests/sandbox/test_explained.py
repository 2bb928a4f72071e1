"""What becomes of divergent events is counted from what producers wrote down and what topics hold; each untruth is found."""

from __future__ import annotations

import msgspec
import pytest

from mrc.sandbox.explained import Copy, Explained, explain
from mrc.sandbox.traffic_log import Acked


def ack(offset: int, key: str = "k", region: str = "east") -> Acked:
    return Acked(float(offset), region, 1 if region == "east" else 2, "orders", 0, offset, key, offset, f"{region}-{offset}")


def copy(of: Acked, offset: int, *, recovered: bool = False, origin: bool = False) -> Copy:
    topic = "mrc.recovered.orders" if recovered else "orders"
    return Copy(topic, 0, offset, of.key, of.id, ("orders", 0, of.offset) if recovered or origin else None)


COPIED, TAIL, OVERLAP, NEW = ack(0, "a"), ack(1, "b"), ack(2, "c"), ack(1, "c", "west")
ACKS = [COPIED, TAIL, OVERLAP, NEW]
KEPT = [copy(COPIED, 0), copy(NEW, 1), copy(TAIL, 0, recovered=True), copy(OVERLAP, 1, recovered=True)]
BOTH_AGAIN = [copy(TAIL, 2, origin=True), copy(OVERLAP, 3, origin=True)]


def judged(copies: list[Copy], policy: str) -> Explained:
    return explain(ACKS, copies, {"orders": policy}, failed_over_to="west")


@pytest.mark.parametrize(
    ("policy", "again", "sums"),
    [("quarantine", [], (0, 0, 2)), ("append", BOTH_AGAIN, (2, 0, 0)), ("untouched", BOTH_AGAIN[:1], (1, 1, 0))],
)
def test_every_event_is_explained_as_its_policy_says(policy: str, again: list[Copy], sums: tuple[int, int, int]) -> None:
    found = judged([*KEPT, *again], policy)
    assert (found.present, found.emitted, found.superseded, found.quarantined) == (2, *sums)
    assert found.ok


@pytest.mark.parametrize(
    ("copies", "policy", "event", "why"),
    [
        (KEPT[:3], "quarantine", OVERLAP, "stands 0 times"),
        ([*KEPT, KEPT[3]], "quarantine", OVERLAP, "stands 2 times"),
        ([*KEPT, *BOTH_AGAIN], "quarantine", TAIL, "under the policy quarantine"),
        ([*KEPT, BOTH_AGAIN[0]], "append", OVERLAP, "was not re-emitted"),
        ([*KEPT, *BOTH_AGAIN, BOTH_AGAIN[0]], "append", TAIL, "re-emitted 2 times"),
        (KEPT, "untouched", TAIL, "was not re-emitted"),
        ([*KEPT, copy(COPIED, 4, origin=True)], "quarantine", COPIED, "present, and re-emitted"),
        ([*KEPT[:3], msgspec.structs.replace(KEPT[3], origin=("orders", 0, 7))], "quarantine", OVERLAP, "came from"),
    ],
)
def test_an_event_with_another_fate_is_unexplained(copies: list[Copy], policy: str, event: Acked, why: str) -> None:
    found = judged(copies, policy)
    assert why in found.unexplained[event.id]
    assert not found.ok

"""The traffic's consumer process: one thread per group, each a member that follows the active region.

Owns the groups' delays: a group with a delay leaves events alone until they are that old, so it stays behind by delay
times rate, until a file asks it to catch up. Invariant: an event's line is with the operating system before its position is committed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from confluent_kafka import Message

from mrc.client.consumer import Closed, FollowingConsumer
from mrc.client.place import Follows, Place
from mrc.core.model import Region
from mrc.sandbox.traffic_log import LogWriter, Processed, decode_event

_BATCH_MAX = 500
_POLL_S = 0.05
_RIPEN_S = 0.02


def catch_up_flag(folder: Path, group: str) -> Path:
    """Return the file whose existence tells ``group`` to drop its delay."""
    return folder / f"catch-up-{group}"


class GroupMember:
    """One group's only member."""

    def __init__(
        self,
        active: Follows,
        configs: Mapping[Region, Mapping[str, Any]],
        group: str,
        topics: Mapping[Region, Sequence[str]],
        delay_s: float,
        folder: Path,
        log: LogWriter,
    ) -> None:
        """Make it; it joins in `run_until`."""
        self._group = group
        self._delay_s = delay_s
        self._flag = catch_up_flag(folder, group)
        self._log = log
        self._place: Place | None = None
        self._consumer = FollowingConsumer(active, configs, group, topics, closed=self._left)

    def run_until(self, stop: Callable[[], bool]) -> None:
        """Process until ``stop`` says so; then commit, leave and close the log."""
        while not stop():
            messages = self._consumer.poll(_BATCH_MAX, _POLL_S)
            self._note_place()
            self._work_off(messages, stop)
        self._consumer.close()
        self._log.close()

    def _work_off(self, messages: Sequence[Message], stop: Callable[[], bool]) -> None:
        done = 0
        while done < len(messages):
            ripe = self._ripe(messages, done)
            for message in messages[done:ripe]:
                self._process(message)
            self._log.flush()
            for message in messages[done:ripe]:
                self._consumer.mark(message)
            done = ripe
            if not self._consumer.tend() or stop():
                return  # what is left was not processed; it comes again at the next opening
            if done < len(messages):
                time.sleep(_RIPEN_S)

    def _ripe(self, messages: Sequence[Message], done: int) -> int:
        """Return the index up to which messages may be processed now."""
        if self._delay_s <= 0 or self._flag.exists():
            return len(messages)
        newest_ms = (time.time() - self._delay_s) * 1000
        while done < len(messages) and messages[done].timestamp()[1] <= newest_ms:
            done += 1
        return done

    def _process(self, message: Message) -> None:
        event = decode_event(message.value())
        place = self._consumer.place
        if event is None or place is None:
            return
        self._log.write(
            Processed(
                time.time(),
                place.region,
                place.epoch,
                self._group,
                str(message.topic()),
                int(message.partition() or 0),
                int(message.offset() or 0),
                event.id,
            )
        )

    def _note_place(self) -> None:
        if self._consumer.place != self._place:
            self._place = self._consumer.place
            if self._place is not None:
                self._log.turn(self._group, self._place.region, self._place.epoch, "started")

    def _left(self, closed: Closed) -> None:
        detail = f"{closed.took_s:.3f} s{', ' + closed.trouble if closed.trouble else ''}"
        self._log.turn(self._group, closed.place.region, closed.place.epoch, "left", detail)
        self._log.flush()
        self._place = None


def run_members(members: Sequence[GroupMember], stop: threading.Event) -> None:
    """Run every member in its own thread until ``stop`` is set, or one of them fails, which ends all and is raised."""
    failures: list[BaseException] = []

    def run(member: GroupMember) -> None:
        try:
            member.run_until(stop.is_set)
        except BaseException as error:  # noqa: BLE001 - it is raised again where the process can end by it
            failures.append(error)
            stop.set()

    threads = [threading.Thread(target=run, args=[member], name="group-member") for member in members]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]

"""The resolver of one region: a loop over ports that reads a batch, decides, commits, and only then touches the disk.

Nothing here survives an error: whoever runs the loop drops it and makes a new one, which goes on from what was committed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from mrc.core.conflict.entity import Rules
from mrc.core.conflict.rules import RuleSet
from mrc.core.errors import MrcError
from mrc.core.model import Offset, Region, TopicPartition
from mrc.ports import Arrived, Clock, Outgoing, Shelf, Shelves, StreamLog
from mrc.resolver.kinds import Kind, Topics, check_partitions, topics
from mrc.resolver.task import Counts, Ready, Task, restore

BATCH_RECORDS_MAX = 10_000
MARK_EVERY_S = 0.5

BUSY_RECORDS = 1_000
"""A batch of so many says that there is more to read: what is not final is then shown only if it is not final for `PROVISIONAL_AFTER_S`."""

PROVISIONAL_AFTER_S = 1.0

TaskId = tuple[str, int]
"""A kind's topic and a partition."""


class Resolver:
    """One process's share of a region's resolving.

    Args:
        log: the region's cluster.
        shelves: the local disk.
        kinds: what is resolved.
        here: the region.
        counts: returns the number of partitions of each of these topics that exists.
        ready: makes rules of before ready to be applied.
        clock: for marks.
        announce: is told what people may want to know, as a word and its facts.
    """

    def __init__(
        self,
        log: StreamLog,
        shelves: Shelves,
        kinds: Sequence[Kind],
        here: Region,
        counts: Callable[[Iterable[str]], Mapping[str, int]],
        ready: Ready,
        clock: Clock,
        announce: Callable[..., None] = lambda word, **facts: None,
    ) -> None:
        self._log = log
        self._shelves = shelves
        self._kinds = {kind.topic: (kind, topics(kind, here)) for kind in kinds}
        self._home = {name: topic for topic, (_, names) in self._kinds.items() for name in names.inputs}
        self._here = here
        self._partition_counts = counts
        self._ready = ready
        self._made: dict[str, Rules] = {}
        self._clock = clock
        self._announce = announce
        self._tasks: dict[TaskId, Task] = {}
        self._mark_at_s = clock.monotonic_s()
        self._rules: dict[TaskId, tuple[str, dict[Region, str]]] = {}
        self.counts = Counts()

    @property
    def tasks(self) -> Mapping[TaskId, Task]:
        """The partitions that this process has now."""
        return self._tasks

    def tick(self, timeout_s: float) -> bool:
        """Read a batch, decide and commit it, and write marks when it is time; return whether there was anything."""
        now_ms = self._clock.now_ms()
        records = self._log.poll(BATCH_RECORDS_MAX, timeout_s, self)
        if records or any(task.dirty for task in self._tasks.values()):
            self._work(records)
        if self._clock.monotonic_s() >= self._mark_at_s:
            self._mark_at_s = self._clock.monotonic_s() + MARK_EVERY_S
            # Asked for behind all that was read: what is written from now on may have seen it.
            listing = [task.own for task in self._tasks.values() if task.lists]
            ends = self._log.ends(listing) if listing else {}
            marks = [task.next_marks(now_ms, ends.get(task.own), at_end=self._log.at_end(task.own)) for task in self._tasks.values()]
            # A partition's one after another: what lists is of no use to anybody where one before it is missing.
            for some in itertools.zip_longest(*marks):
                self._log.append([one for one in some if one is not None])
        return bool(records)

    def close(self) -> None:
        """Leave the group, then release the shelves; harmless when repeated."""
        self._log.close()
        self.given_back()

    # ---------------------------------------------------------------- the share

    def taken(self, tps: frozenset[TopicPartition]) -> Mapping[TopicPartition, Offset]:
        """See `Shares.taken`: restores the state and returns where it goes on."""
        self.given_back()
        wanted: dict[TaskId, set[str]] = {}
        for tp in tps:
            wanted.setdefault((self._home[tp.topic], tp.partition), set()).add(tp.topic)
        partitions = {topic: self._checked(topic) for topic in {topic for topic, _ in wanted}}
        for (topic, partition), found in sorted(wanted.items()):
            kind, names = self._kinds[topic]
            missing = set(names.inputs) - found
            if missing:
                here = ", ".join(sorted(found))
                message = f"partition {partition} of {', '.join(sorted(missing))} is another process's, that of {here} is here"
                raise MrcError("PARTITIONS_DIFFER", message, where=self._here, retryable=True)
            self._tasks[topic, partition] = self._begin(kind, names, partition, partitions[topic])
        self._announce("share", partitions=[f"{topic}-{partition}" for topic, partition in self._tasks])
        return {tp: offset for task in self._tasks.values() for tp, offset in task.positions().items()}

    def given_back(self) -> None:
        """See `Shares.given_back`: releases the shelves."""
        for task in self._tasks.values():
            task.close()
        self._tasks = {}

    def _checked(self, topic: str) -> int:
        kind, names = self._kinds[topic]
        counts = self._partition_counts([*names.inputs, *names.made])
        check_partitions(kind, names, counts)
        return counts[topic]

    def _begin(self, kind: Kind, names: Topics, partition: int, partitions: int) -> Task:
        changelog = TopicPartition(names.changelog, partition)
        shelf = self._shelves.open(str(changelog), self._log.identity(names.changelog))
        try:
            shelf = self._restored(shelf, changelog)
            return Task(kind, names, partition, partitions, shelf, self._ready_once)
        except msgspec.DecodeError as error:
            shelf.close()
            raise MrcError("STATE_UNREADABLE", f"another version wrote it, or somebody else: {error}", where=str(changelog)) from error
        except BaseException:
            shelf.close()
            raise

    def _ready_once(self, rules: RuleSet) -> Rules:
        """Partitions share what was made ready."""
        version = rules.hash
        if version not in self._made:
            self._made[version] = self._ready(rules)
        return self._made[version]

    def _restored(self, shelf: Shelf, changelog: TopicPartition) -> Shelf:
        at = shelf.offset()
        try:
            count = restore(shelf, self._log.replay(changelog, at))
        except MrcError as error:
            if error.code != "OFFSET_OUT_OF_RANGE":
                raise
            # The log was cut off behind or before it: what the disk has is not what the log says. The log is right.
            self._announce("disk-dropped", partition=str(changelog), offset=at)
            shelf.close()
            self._shelves.wipe(str(changelog))
            shelf = self._shelves.open(str(changelog), self._log.identity(changelog.topic))
            count = restore(shelf, self._log.replay(changelog, Offset(0)))
        if count:
            self._announce("restored", partition=str(changelog), records=count)
        return shelf

    # ---------------------------------------------------------------- a batch

    def _work(self, records: Sequence[Arrived]) -> None:
        worked = {id: task for id, task in self._tasks.items() if task.dirty}
        for record in records:
            id = (self._home[record.topic], record.partition)
            task = worked[id] = self._tasks[id]
            task.take(record)
        now_s = self._clock.monotonic_s()
        provisional_after_s = PROVISIONAL_AFTER_S if len(records) >= BUSY_RECORDS else 0.0
        out: list[Outgoing] = []
        positions: dict[TopicPartition, Offset] = {}
        for task in worked.values():
            out += task.finish(now_s, provisional_after_s)
            positions |= task.positions()
        ends = self._log.commit(out, positions)
        for id, task in worked.items():
            self.counts.add(task.committed(ends[task.changelog]))
            self._say_rules(id, task)

    def _say_rules(self, id: TaskId, task: Task) -> None:
        before, foreign = self._rules.get(id, (task.version, {}))
        now = self._rules[id] = (task.version, task.foreign)
        partition = f"{id[0]}-{id[1]}"
        for region, version in now[1].items():
            if foreign.get(region) != version:
                self._announce("other-rules", region=region, partition=partition, has=version)
        for region in foreign.keys() - now[1].keys():
            self._announce("same-rules", region=region, partition=partition)
        if now[0] != before:
            self._announce("rules", partition=partition, version=now[0], before=before)

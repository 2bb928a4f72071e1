"""How long moves take with many groups and partitions: the write block, the time until all works again, and the time to go on.

Usage: ``python -m benchmarks.moves [--groups 100] [--parts planned resume unplanned] [--repeats 5] [--json FILE]``. Real regions, live
traffic through the sandbox's producer and two live groups; the other groups have positions on every partition, each at its own place,
chosen anew before every move. Every number of groups has a sandbox of its own. Three parts, each of ``--repeats`` moves:

- ``planned``: a switchover, there and back in turns. ``block_s`` is from the last acknowledgement in the source to the first in the
  target, of the partition for which it took longest; ``block_any_s`` the same of all partitions together.
- ``unplanned``: the open region is killed (SIGKILL) and `mrc failover` asked for at once. ``rto_s`` is from the kill until a write is
  acknowledged in the target and every live group has processed an event there; ``first_ack_s`` to the acknowledgement alone. The
  region is then brought back and goes home by a switchover, unmeasured.
- ``resume``: the agent that carries a switchover is killed when the journal says that a step is done. ``resumed_s`` is from the kill
  until another agent's entry is in the journal, ``first_ack_s`` until a write is acknowledged in the target.

Every figure but ``resumed_s`` and what single steps took, which the journal tells, is taken from the traffic's own logs. Every move is
judged as the demo's are; a promise that was broken is printed as MISSED, and so is an aim (exit code 3). Parts that were measured before,
under the same circumstances, stay in FILE: what is left, or another number of groups, may be run later.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import secrets
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

import yaml
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, OffsetSpec

from benchmarks.setting import RESULTS, circumstances, send
from mrc.adapters.zookeeper.tree import ZooKeeperTree
from mrc.agent.store import Store
from mrc.core.errors import MrcError
from mrc.core.failover.execution import Entry, Verified
from mrc.core.model import decode
from mrc.sandbox.judge import Limits, Move, MoveVerdict, judge, read_log
from mrc.sandbox.layout import REPLICATION_GROUP, TOPICS, Options, other
from mrc.sandbox.traffic import Traffic
from mrc.sandbox.traffic_log import Logs
from mrc.sandbox.world import Sandbox

T = TypeVar("T")

Part = Literal["planned", "resume", "unplanned"]
Figures = dict[str, float | None]

PARTS: tuple[Part, ...] = ("planned", "resume", "unplanned")
GROUPS = (10, 100)
HEADLINE_GROUPS = 100
PARTITIONS = 50
PARTITIONS_MIN = 2 * max(TOPICS.values())
REPEATS = 5
RATE = 1000.0
KILL_AFTER = ("fence-source", "drain", "stop-flow", "record-ends", "release-groups", "close-source", "move-positions")
"""The steps of a switchover before the target is opened; the first one blocks writes for the longest time when it is broken off."""

LIVE_DELAYS_S = (0.0, 1.0)
"""The live groups, by how far they stay behind."""

BEHIND_MAX = 300
SEED = 7
SESSION_TIMEOUT_S = 4.0
"""ZooKeeper's, as the sandbox's mrc.yaml has it; checked before anything is measured."""

AIMS: Mapping[str, tuple[Part, str, float]] = {
    "planned_block_s": ("planned", "block_s", 3.0),
    "unplanned_rto_s": ("unplanned", "rto_s", 5.0),
    "resume_after_kill_s": ("resume", "resumed_s", SESSION_TIMEOUT_S + 3.0),
}
"""The figures that are held to an aim, by their names in the results; the aim is for the median."""

MM2_CHECKPOINTS_EVERY_S = 60
"""Kafka's default. The sandbox has them made each second, to compare with, which takes a core with 100 groups; no move uses them."""

COMMAND_S = 120.0
READY_S = 180.0
REQUEST_S = 15.0
BEFORE_READ = 20_000
"""How many records of each partition are read, to judge a round, beyond as many as the round has written."""


# ---------------------------------------------------------------- the figures' arithmetic


def measured(logs: Logs, move: Move, verdict: MoveVerdict) -> Figures:
    """Return what one move took, from the traffic's logs alone; None of what never came."""
    accepted_s = move.accepted_at_ms / 1000
    first_s = min((ack.at_s for ack in logs.acked if ack.region == move.target and ack.at_s >= accepted_s), default=None)
    last_s = max((ack.at_s for ack in logs.acked if ack.region == move.source and first_s is not None and ack.at_s < first_s), default=None)
    return {
        "block_s": verdict.write_block_s,
        "block_any_s": None if first_s is None or last_s is None else round(first_s - last_s, 3),
        "rto_s": verdict.rto_s,
        "first_ack_s": None if first_s is None else round(first_s - accepted_s, 3),
    }


def summary(samples: Sequence[Figures]) -> dict[str, dict[str, float | None]]:
    """Return median and worst per figure; None where a move lacks it, for then it never ended."""
    found: dict[str, dict[str, float | None]] = {}
    for name in dict.fromkeys(name for sample in samples for name in sample):
        values = [sample.get(name) for sample in samples]
        known = [value for value in values if value is not None]
        whole = len(known) == len(values)
        found[name] = {"p50": round(statistics.median(known), 3), "worst": max(known)} if whole else {"p50": None, "worst": None}
    return found


def headlines(measurements: Mapping[str, Mapping[str, Any]]) -> dict[str, float | None]:
    """Return the figures that have an aim: medians at `HEADLINE_GROUPS`, None where they were not measured."""
    parts = measurements.get(str(HEADLINE_GROUPS), {})
    return {name: parts[part]["summary"][figure]["p50"] if part in parts else None for name, (part, figure, _) in AIMS.items()}


def missed(measurements: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the aims that are missed and the promises that were broken, at every number of groups."""
    found = []
    for groups, parts in measurements.items():
        for name, (part, figure, aim_s) in AIMS.items():
            if part in parts and not ((p50 := parts[part]["summary"][figure]["p50"]) is not None and p50 <= aim_s):
                found.append(f"{name} with {groups} groups is {p50}, the aim is at most {aim_s:.0f}")
        found += [f"{part} with {groups} groups: {words}" for part, taken in parts.items() for words in taken["broken"]]
    return found


def table(measurements: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the figures for people."""
    aims: dict[tuple[str, str], float] = {(part, figure): aim_s for part, figure, aim_s in AIMS.values()}
    lines = [f"{'groups':>6}  {'part':<10}{'figure':<18}{'p50':>8}{'worst':>8}{'aim':>6}  verdict"]
    for groups, parts in measurements.items():
        for part, taken in parts.items():
            for figure, row in taken["summary"].items():
                aim_s = aims.get((part, figure))
                said = "" if aim_s is None else "met" if row["p50"] is not None and row["p50"] <= aim_s else "MISSED"
                p50, worst = ("never" if row[name] is None else f"{row[name]:.2f}" for name in ("p50", "worst"))
                lines.append(f"{groups:>6}  {part:<10}{figure:<18}{p50:>8}{worst:>8}{'-' if aim_s is None else f'{aim_s:.0f}':>6}  {said}")
            lines.append(f"{groups:>6}  {part:<10}{'agents, MB each at most':<34}{taken['agent_rss_mb_max']:>6.0f}")
    return "\n".join(lines)


def merged(before: Mapping[str, Any], setting: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the measurements of an earlier file that were taken under the very same circumstances; none otherwise."""
    same = all(before.get(name) == value for name, value in setting.items())
    return {groups: dict(parts) for groups, parts in before.get("measurements", {}).items()} if same else {}


# ---------------------------------------------------------------- one sandbox


class Bench:
    """Moves in one sandbox, with one number of groups."""

    def __init__(self, folder: Path, groups: int, asked: argparse.Namespace) -> None:
        self.sandbox = Sandbox(folder)
        self.groups = [f"bench-{number:03d}" for number in range(groups)]
        self._live = dict(zip(self.groups, LIVE_DELAYS_S, strict=False))
        self._asked = asked
        self._topics = dict(zip(TOPICS, (asked.partitions - asked.partitions // 2, asked.partitions // 2), strict=True))
        self._choose = random.Random(SEED)
        self._active = "east"
        self._rounds = 0
        self._rss_mb_max = 0.0

    def start(self) -> None:
        """Start two regions, make partitions and groups, start the agents."""
        say(f"starts two regions for {len(self.groups)} groups")
        self.sandbox.up(Options(mm2_checkpoints_every_s=MM2_CHECKPOINTS_EVERY_S))
        settings = yaml.safe_load(self.sandbox.config_path.read_text())
        if settings["zookeeper"]["session_timeout_ms"] != SESSION_TIMEOUT_S * 1000:
            raise MrcError("INVARIANT", f"the session time-out is not the {SESSION_TIMEOUT_S} s that the aim is made of")
        settings["replication_groups"][0]["groups"] = self.groups
        self.sandbox.config_path.write_text(yaml.safe_dump(settings, sort_keys=False))
        for region in ("east", "west"):
            admin = self._admin(region)  # its answers end with it
            grown = [NewPartitions(topic, number) for topic, number in self._topics.items() if number > TOPICS[topic]]
            for future in admin.create_partitions(grown, request_timeout=REQUEST_S).values() if grown else ():
                future.result(timeout=2 * REQUEST_S)
        # A connector sees new partitions when it starts.
        restart = f"{settings['regions']['west']['connect']['url']}/connectors/mrc.{REPLICATION_GROUP}.east-west/restart"
        send("POST", f"{restart}?includeTasks=true&onlyFailed=false")
        self.sandbox.start_agents()

    def measure(self, part: Part) -> dict[str, Any]:
        """Return the samples of one part, what they come to, and which promises were broken."""
        carry_out: Mapping[Part, Callable[[Traffic], tuple[list[Move], Figures]]] = {
            "planned": self._planned,
            "resume": self._resume,
            "unplanned": self._unplanned,
        }
        samples: list[Figures] = []
        broken: list[str] = []
        load = os.getloadavg()[0] / (os.cpu_count() or 1)
        began_s = time.monotonic()
        self._rss_mb_max = 0.0
        for number in range(self._asked.repeats):
            with self._traffic() as traffic:
                moves, more = carry_out[part](traffic)
                self._weigh()
            logs = traffic.logs()
            verdicts = self._judge(logs, moves)
            samples.append(measured(logs, moves[0], verdicts[0]) | more)
            broken += [f"move {number + 1}, {one.kind} to {one.target}: {reason}" for one in verdicts for reason in one.reasons]
            say(f"{part} {number + 1} of {self._asked.repeats}: {json.dumps(samples[-1])}")
        return {
            "summary": summary(samples),
            "samples": samples,
            "broken": broken,
            "agent_rss_mb_max": self._rss_mb_max,
            "load_per_core_before": round(load, 2),
            "took_s": round(time.monotonic() - began_s),
        }

    # -- the three kinds of moves

    def _planned(self, traffic: Traffic) -> tuple[list[Move], Figures]:
        source, target = self._active, other(self._active)
        self._until_ready(target)
        move = Move("switchover", source, target, now_ms())
        steps = self._move("switchover", target)
        self._arrived(traffic, target)
        return [move], steps

    def _unplanned(self, traffic: Traffic) -> tuple[list[Move], Figures]:
        source, target = self._active, other(self._active)
        self._until_ready(target)
        captured = self._captured()
        move = Move("failover", source, target, now_ms(), captured)
        self.sandbox.kill(source)
        steps = self._move("failover", target, "--attest-dead")
        self._arrived(traffic, target)
        self.sandbox.start(source)
        self.sandbox.start_agents(source)
        home, _ = self._planned(traffic)
        return [move, *home], steps

    def _resume(self, traffic: Traffic) -> tuple[list[Move], Figures]:
        source, target = self._active, other(self._active)
        self._until_ready(target)
        began_ms = now_ms()
        with self._journal() as store, started(self._command("switchover", target, "--yes", "--no-wait", "--reason", "benchmark")):
            execution = wait_for(lambda: store.current()[0], COMMAND_S, "the switchover was not begun")
            journal = Journal(store, execution)
            done = journal.wait(lambda e: isinstance(e.event, Verified) and e.event.step == self._asked.kill_after, COMMAND_S)
            killed_s = time.time()
            self.sandbox.kill_agent(done.agent)
            journal.wait(lambda e: e.agent != done.agent, COMMAND_S)
            resumed_s = round(time.time() - killed_s, 3)
            wait_for(lambda: not store.current()[0], COMMAND_S, "the switchover did not end")
        self._arrived(traffic, target)
        self.sandbox.start_agent(done.agent)
        first_ack_s = min(ack.at_s for ack in traffic.logs().acked if ack.region == target and ack.at_s >= began_ms / 1000)
        return [Move("switchover", source, target, began_ms)], {"resumed_s": resumed_s, "first_ack_s": round(first_ack_s - killed_s, 3)}

    # -- pieces

    @contextmanager
    def _traffic(self) -> Iterator[Traffic]:
        """Run traffic with logs of its own for one round; the idle groups get new positions."""
        self._rounds += 1
        traffic = Traffic(self.sandbox.state.folder, self.sandbox.state.folder / f"traffic-{self._rounds}")
        traffic.start(self._asked.rate, groups=self._live)
        if not traffic.wait_acked(int(2 * self._asked.rate), 60.0, region=self._active):
            raise MrcError("SANDBOX_FAILED", f"no producer writes in {self._active}", where=self._active)
        self._spread()
        yield traffic
        traffic.stop()

    def _spread(self) -> None:
        """Commit a position on every partition for every group that is not live, each somewhere behind the end."""
        admin = self._admin(self._active)
        wanted = {TopicPartition(topic, number): OffsetSpec.latest() for topic, count in self._topics.items() for number in range(count)}
        ends = {tp: future.result(timeout=REQUEST_S).offset for tp, future in admin.list_offsets(wanted, request_timeout=REQUEST_S).items()}
        for group in self.groups[len(self._live) :]:
            places = [TopicPartition(tp.topic, tp.partition, max(0, end - self._choose.randrange(BEHIND_MAX))) for tp, end in ends.items()]
            request = ConsumerGroupTopicPartitions(group, places)
            admin.alter_consumer_group_offsets([request], request_timeout=REQUEST_S)[group].result(timeout=REQUEST_S)

    def _until_ready(self, target: str) -> None:
        """Wait until every position of every group on every partition is fresh, and exact but for records that a producer sent twice."""
        wanted = len(self.groups) * self._asked.partitions
        until_s = time.monotonic() + READY_S
        while True:
            try:
                positions = json.loads(self._mrc("plan", "switchover", target))["positions"]
                late = [p for p in positions if not (p["age_s"] < 2 and _answered(p["translation"]))]
                if not late and len(positions) == wanted:
                    return
                problem = f"{len(positions) - len(late)} of {wanted} positions are answered and fresh; others: {json.dumps(late[:3])}"
            except MrcError as error:
                problem = error.message
            if time.monotonic() > until_s:
                raise MrcError("SANDBOX_FAILED", f"{target} is not ready after {READY_S:.0f} s: {problem}", where=target)
            time.sleep(0.5)

    def _move(self, kind: str, target: str, *more: str) -> Figures:
        """Ask for a move until it is accepted, as a person would; all of that is within the move's time.

        Returns:
            What each step took by the journal, which tells where the move's time went.
        """
        token = secrets.token_hex(8)  # so that a request whose answer was lost is not made twice
        until_s = time.monotonic() + COMMAND_S
        while True:
            try:
                said = self._mrc(kind, target, *more, "--yes", "--reason", "benchmark", "--token", token)
            except MrcError as error:
                if not error.retryable or time.monotonic() > until_s:
                    raise
                say(f"asks again: {error.message}")
            else:
                return {f"{step['name']}_s": step["elapsed_ms"] / 1000 for step in json.loads(said)["steps"]}

    def _arrived(self, traffic: Traffic, target: str) -> None:
        self._active = target
        if not traffic.wait_acked(100, 60.0, region=target):
            raise MrcError("SANDBOX_FAILED", f"no producer wrote in {target} within 60 s", where=target)
        if not traffic.wait_processed(1, 60.0, list(self._live), region=target):
            raise MrcError("SANDBOX_FAILED", f"a group read nothing in {target} within 60 s", where=target)

    def _captured(self) -> dict[str, dict[str, int]]:
        """Return the captured positions of the live groups, to which the judge holds a failover."""
        found: dict[str, dict[str, int]] = {}
        for group in self._live:
            listed = json.loads(self._mrc("offsets", "list", "--group", group))
            found[group] = {f"{one['topic']}-{one['partition']}": one["source_offset"] for one in listed}
        return found

    def _judge(self, logs: Logs, moves: Sequence[Move]) -> list[MoveVerdict]:
        written = Counter((ack.topic, ack.partition) for ack in logs.acked)
        last = max(written.values()) + BEFORE_READ
        regions = {
            region: read_log(self.sandbox.client_config(region, "admin"), list(TOPICS), last=last, timeout_s=COMMAND_S)
            for region in ("east", "west")
        }
        return judge(logs, regions, moves, self._live, active=moves[0].source, drained=False, limits=Limits(None, None)).moves

    def _weigh(self) -> None:
        """Note the agents' peak memory, as the operating system has it."""
        for part in self.sandbox.status():
            if part.kind == "agent" and part.pid is not None:
                line = next(line for line in Path(f"/proc/{part.pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
                self._rss_mb_max = max(self._rss_mb_max, round(int(line.split()[1]) / 1024, 1))

    def _admin(self, region: str) -> AdminClient:
        return AdminClient({**self.sandbox.client_config(region, "admin"), "log_level": 2})

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "mrc", "--config", str(self.sandbox.config_path), "--output", "json", *arguments]

    def _mrc(self, *arguments: str) -> bytes:
        """Run a command of mrc and return its standard output. Raises ``SANDBOX_FAILED`` with its last words when it fails."""
        try:
            done = subprocess.run(self._command(*arguments), capture_output=True, timeout=COMMAND_S, check=False)
        except subprocess.TimeoutExpired as expired:
            raise MrcError("SANDBOX_FAILED", f"`mrc {' '.join(arguments)}` has not ended within {COMMAND_S:.0f} s") from expired
        if done.returncode:
            words = " ".join(done.stderr.decode(errors="replace").split())[-2000:]
            message = f"`mrc {' '.join(arguments)}` ended with {done.returncode}: {words}"
            raise MrcError("SANDBOX_FAILED", message, retryable='"retryable": true' in words)
        return done.stdout

    @contextmanager
    def _journal(self) -> Iterator[Store]:
        tree = ZooKeeperTree(self.sandbox.layout.zookeeper(), "/mrc", int(SESSION_TIMEOUT_S * 1000), REQUEST_S)
        try:
            yield Store(tree, REPLICATION_GROUP)
        finally:
            tree.close()


def _answered(translation: Mapping[str, object]) -> bool:
    """Whether an answer is as good as it gets: what a producer sends again when its region dies are twins, which nothing tells apart."""
    return translation["type"] == "exact" or translation["reason"] == "identical-records"


class Journal:
    """An execution's journal, read as it grows."""

    def __init__(self, store: Store, execution: str) -> None:
        self._tree = store.tree
        self._path = f"{store.root}/executions/{execution}/entries"
        self._read = 0

    def wait(self, wanted: Callable[[Entry], bool], timeout_s: float) -> Entry:
        """Return the next entry that is wanted. Raises ``SANDBOX_FAILED`` when it does not come in time."""
        return wait_for(lambda: next(filter(wanted, self._next()), None), timeout_s, "the journal lacks the entry that was waited for")

    def _next(self) -> Iterator[Entry]:
        for name in self._tree.children(self._path)[self._read :]:
            self._read += 1
            if (node := self._tree.get(f"{self._path}/{name}")) is not None:
                yield decode(node.data, Entry)


@contextmanager
def started(command: list[str]) -> Iterator[None]:
    """Run a command beside; it is ended with the block."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()


def wait_for(look: Callable[[], T | None], timeout_s: float, otherwise: str) -> T:
    """Return the first answer that is true. Raises ``SANDBOX_FAILED`` when none comes in time."""
    until_s = time.monotonic() + timeout_s
    while not (found := look()):
        if time.monotonic() > until_s:
            raise MrcError("SANDBOX_FAILED", f"{otherwise} within {timeout_s:.0f} s")
        time.sleep(0.01)
    return found


def now_ms() -> int:
    """Return the wall clock, which the traffic's logs use as well."""
    return int(time.time() * 1000)


def say(text: str) -> None:
    """Tell the user how far it is."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


# ---------------------------------------------------------------- the command


def main() -> int:
    """Measure, print, write after every part."""
    asked = arguments()
    signal.signal(signal.SIGTERM, interrupted)
    parameters = {
        "partitions": asked.partitions,
        "repeats": asked.repeats,
        "records_per_s": asked.rate,
        "live_groups": len(LIVE_DELAYS_S),
        "behind_max": BEHIND_MAX,
        "kill_after": asked.kill_after,
        "zookeeper_session_timeout_s": SESSION_TIMEOUT_S,
        "mm2_checkpoints_every_s": MM2_CHECKPOINTS_EVERY_S,
        "seed": SEED,
    }
    setting = circumstances(parameters)
    before = json.loads(asked.json.read_text()) if asked.json.exists() else {}
    measurements = merged(before, setting)
    if before and not measurements:
        say(f"{asked.json} was measured under other circumstances: begins it anew")
    try:
        for groups in asked.groups:
            run(groups, asked, setting, measurements)
    except KeyboardInterrupt:
        say("interrupted; nothing is left running, the parts that were finished are written")
        return 130
    except (MrcError, KafkaException, TimeoutError) as error:
        say(f"failed, the parts that were finished are written: {error}")
        return 1
    print(table(measurements))
    for words in missed(measurements):
        print(f"MISSED: {words}")
    return 3 if missed(measurements) else 0


def run(groups: int, asked: argparse.Namespace, setting: Mapping[str, Any], measurements: dict[str, dict[str, Any]]) -> None:
    """Measure the parts that were asked for with one number of groups, in a sandbox of their own; each is written when it is done."""
    folder = (asked.state or Path(tempfile.mkdtemp(prefix="mrc-bench-"))) / str(groups)
    bench = Bench(folder, groups, asked)
    try:
        bench.start()
        for part in asked.parts:
            measurements.setdefault(str(groups), {})[part] = bench.measure(part)
            asked.json.parent.mkdir(parents=True, exist_ok=True)
            document = {**setting, **headlines(measurements), "measurements": measurements}
            asked.json.write_text(json.dumps(document, indent=2) + "\n")
    finally:
        bench.sandbox.down(wipe=asked.state is None)
        if asked.state is None:
            shutil.rmtree(folder.parent, ignore_errors=True)


def interrupted(number: int, frame: object) -> NoReturn:
    """End as Ctrl-C does."""
    raise KeyboardInterrupt


def arguments() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, nargs="+", default=list(GROUPS), help="numbers of consumer groups (default 10 100)")
    parser.add_argument("--partitions", type=int, default=PARTITIONS, help="of all topics together (default 50)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure (default: all)")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="moves per part (default 5)")
    parser.add_argument("--rate", type=float, default=RATE, help="events per second (default 1000)")
    parser.add_argument("--kill-after", choices=KILL_AFTER, default=KILL_AFTER[0], help="the step after which the agent is killed")
    parser.add_argument("--state", type=Path, help="a folder for the sandboxes, which stays, logs and all (default: a temporary one)")
    parser.add_argument("--json", type=Path, default=RESULTS / "moves.json", help="where results go, beside what is there")
    asked = parser.parse_args()
    if min(asked.groups) < len(LIVE_DELAYS_S):
        parser.error(f"--groups: at least {len(LIVE_DELAYS_S)}, which are live")
    if asked.partitions < PARTITIONS_MIN:
        parser.error(f"--partitions: at least {PARTITIONS_MIN}, which the sandbox has")
    if asked.repeats < 1 or asked.rate <= 0:
        parser.error("--repeats and --rate: more than nothing")
    return asked


if __name__ == "__main__":
    sys.exit(main())

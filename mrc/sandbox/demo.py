"""The demo: a switchover there and back, a region killed, a failover, the way home; judged from the traffic's own logs.

Drives the same commands that an operator types. What it claims of loss, repetition and times comes from `mrc.sandbox.judge`;
only the captured positions, to which a failover is held, are asked of mrc (before the region dies).
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from mrc.config import load
from mrc.core.errors import MrcError
from mrc.sandbox import connect
from mrc.sandbox.explained import explain, read_copies
from mrc.sandbox.judge import LIMITS, Limits, Move, Verdict
from mrc.sandbox.layout import Options
from mrc.sandbox.traffic import Traffic
from mrc.sandbox.world import Sandbox

COMMAND_S = 300.0
READY_S = 300.0
FOLLOW_S = 120.0
"""How long clients may take to follow a move, on a machine that is busy with other things; what they took is measured elsewhere."""

TRAFFIC_S = 6.0
"""How long traffic runs between two moves."""

REFUSED = 3
"""The exit code of a move that was not begun because of what was found."""

Say = Callable[[str], None]


class _Refused(MrcError):
    """A move was refused before it began."""


class Demo:
    """One run on one sandbox; ``limits`` are what its moves may take, ``pages`` is where the report of each is written."""

    def __init__(self, state: Path, say: Say, *, rate: float, options: Options, limits: Limits = LIMITS, pages: Path | None = None) -> None:
        self.sandbox = Sandbox(state)
        self.traffic = Traffic(state, state / "demo-traffic")
        self._say = say
        self._rate = rate
        self._options = options
        self._limits = limits
        self._moves: list[Move] = []
        self._executions: list[str] = []
        self._pages = pages

    def run(self) -> Verdict:
        """Run it all and return the verdict; the caller takes the sandbox down.

        Raises:
            MrcError: ``SANDBOX_FAILED`` when a command of the demo fails; the message holds its last words.
        """
        self._say("two regions, three ZooKeeper servers, four agents")
        self.sandbox.up(self._options, lambda part, what: self._say(f"  {part}: {what}"))
        self.sandbox.start_agents()
        self.traffic.start(self._rate, groups={"billing": 0.0, "shipping": 1.0})
        self._until_ready("west")
        self._flow_for(TRAFFIC_S)

        self._move("switchover", "east", "west")
        self._flow_for(TRAFFIC_S)
        self._until_ready("east")
        self._move("switchover", "west", "east")
        self._flow_for(TRAFFIC_S)
        self._until_ready("west")

        captured = self._captured()
        self._say("east dies: broker, Connect, ZooKeeper server and agents, SIGKILL")
        self.sandbox.kill("east")
        self._move("failover", "east", "west", "--attest-dead", captured=captured)
        self._flow_for(TRAFFIC_S)

        self._say("east returns")
        self.sandbox.start("east", lambda part, what: self._say(f"  {part}: {what}"))
        self.sandbox.start_agents("east")
        self._until_ready("east")
        self._flow_for(TRAFFIC_S)
        # Under the default policy nothing diverges: the flow copies what stayed behind, and the way home is a switchover like any other.
        diverges = self._options.policy == "identity"
        self._move("failback" if diverges else "switchover", "west", "east")
        self._flow_for(TRAFFIC_S)

        self._say("the producer ends, the groups finish")
        self.traffic.stop_producers()
        drained = self.traffic.drain(READY_S)
        verdict = self.traffic.judge(self._moves, drained=drained, limits=self._limits)
        self._hold_to_the_ledger(verdict)
        if diverges:
            self._hold_to_the_fates(verdict)
        self._write_pages()
        return verdict

    # -- pieces

    def mrc(self, *arguments: str) -> bytes:
        """Run a command of mrc and return its standard output.

        Raises:
            MrcError: ``SANDBOX_FAILED`` with its last words when it fails.
        """
        command = [sys.executable, "-m", "mrc", "--config", str(self.sandbox.config_path), "--output", "json", *arguments]
        try:
            done = subprocess.run(command, capture_output=True, timeout=COMMAND_S, check=False)
        except subprocess.TimeoutExpired:
            raise MrcError("SANDBOX_FAILED", f"`mrc {' '.join(arguments)}` did not end within {COMMAND_S:.0f} s") from None
        if done.returncode:
            words = done.stderr.decode(errors="replace").strip()[-2000:]
            kind = _Refused if done.returncode == REFUSED else MrcError
            raise kind("SANDBOX_FAILED", f"`mrc {' '.join(arguments)}` ended with {done.returncode}: {words}")
        return done.stdout

    def _move(self, kind: str, source: str, target: str, *more: str, captured: Mapping[str, Mapping[str, int]] | None = None) -> None:
        self._say(f"mrc {kind} {target}")
        until_s = time.monotonic() + READY_S
        while True:
            accepted_at_ms, began_s = int(time.time() * 1000), time.monotonic()
            try:
                self._executions.append(json.loads(self.mrc(kind, target, "--yes", "--reason", "demo", *more))["id"])
                break
            except _Refused as error:
                # Nothing was touched: on a busy machine something did not answer in time when it was looked at once more.
                if began_s > until_s:
                    raise
                self._say(f"  refused, tried again: {error.message}")
                time.sleep(2)
        self._moves.append(Move(kind, source, target, accepted_at_ms, captured or {}))
        if not self.traffic.wait_acked(100, FOLLOW_S, region=target):
            raise MrcError("SANDBOX_FAILED", f"no producer wrote in {target} within {FOLLOW_S:.0f} s", where=target)
        if not self.traffic.wait_processed(1, FOLLOW_S, ["billing", "shipping"], region=target):
            raise MrcError("SANDBOX_FAILED", f"a group read nothing in {target} within {FOLLOW_S:.0f} s", where=target)
        self._say(f"  done after {time.monotonic() - began_s:.1f} s")

    def _write_pages(self) -> None:
        """Write the report of each move, as a page and as JSON, now that the ledger is complete."""
        if self._pages is None:
            return
        self._pages.mkdir(parents=True, exist_ok=True)
        for number, (move, execution) in enumerate(zip(self._moves, self._executions, strict=True), 1):
            for form in ("html", "json"):
                path = self._pages / f"{number}-{move.kind}-{move.source}-{move.target}.{form}"
                self.mrc("report", execution, "--output", form, "--file", str(path))
            self._say(f"report of the {move.kind} to {move.target}: {path.with_suffix('.html')}")

    def _flow_for(self, seconds: float) -> None:
        """Let traffic run until as many events as that time brings were acknowledged."""
        self.traffic.wait_acked(int(self._rate * seconds), seconds * 5)

    def _restart_failed(self, target: str) -> None:
        with contextlib.suppress(MrcError):  # Connect may still begin
            for name in connect.restart_failed(self.sandbox.layout, target):
                self._say(f"  {name}: a task has failed, and is started again")

    def _until_ready(self, target: str) -> None:
        """Wait until a switchover to ``target`` could be planned and its positions are captured."""
        until_s = time.monotonic() + READY_S
        while True:
            try:
                plan = json.loads(self.mrc("plan", "switchover", target))
                positions = plan["positions"]
                if positions and all(p["translation"]["type"] == "exact" for p in positions):
                    return
                problem = f"{sum(p['translation']['type'] == 'exact' for p in positions)} of {len(positions)} positions are exact"
            except MrcError as error:
                problem = error.message
                self._restart_failed(target)
            if time.monotonic() > until_s:
                raise MrcError("SANDBOX_FAILED", f"{target} is not ready after {READY_S:.0f} s: {problem}", where=target)
            time.sleep(0.5)

    def _captured(self) -> dict[str, dict[str, int]]:
        """Return the source positions that are captured at least: what a failover from now on is held to."""
        found: dict[str, dict[str, int]] = {}
        for one in json.loads(self.mrc("offsets", "list")):
            found.setdefault(one["group"], {})[f"{one['topic']}-{one['partition']}"] = one["source_offset"]
        return found

    def _hold_to_the_fates(self, verdict: Verdict) -> None:
        """Every event that was acknowledged before the way home is in west's log, or stands in quarantine there, once."""
        home_at_s = self._moves[-1].accepted_at_ms / 1000
        acked = [ack for ack in self.traffic.logs().acked if ack.at_s < home_at_s]
        topics = load(self.sandbox.config_path).replication_groups[0].topics
        found = explain(acked, read_copies(self.sandbox.client_config("west", "admin"), topics), {}, failed_over_to="west")
        self._say(f"{found.divergent} events stayed behind: {found.quarantined} in quarantine, {len(found.unexplained)} unexplained")
        if not found.ok:
            verdict.ok = False
            verdict.reasons.append(
                f"{len(found.unexplained)} acknowledged events are unexplained: {next(iter(found.unexplained.values()), '')}"
            )

    def _hold_to_the_ledger(self, verdict: Verdict) -> None:
        """The tail that the logs show and the one that mrc lists must be the same, partition by partition."""
        listed: dict[str, int] = {}
        for entry in json.loads(self.mrc("divergence", "show")):
            for one in entry["ranges"]:
                name = f"{one['topic']}-{one['partition']}"
                listed[name] = listed.get(name, 0) + one["records"]
        tail: dict[str, int] = {}
        for move in verdict.moves:
            for name, records in move.unreplicated_tail_per_partition.items():
                tail[name] = tail.get(name, 0) + records
        for name in sorted(listed.keys() | tail.keys()):
            # The log may also hold events whose acknowledgement never reached the producer: listed, but not promised.
            if listed.get(name, 0) < tail.get(name, 0):
                verdict.ok = False
                verdict.reasons.append(f"{name}: {tail[name]} acknowledged events are in the tail, the ledger lists {listed.get(name, 0)}")


def report(verdict: Verdict) -> bytes:
    """Return the verdict as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(verdict), indent=2)

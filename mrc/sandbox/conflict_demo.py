"""The demo of conflicts: *Order Cancelled* in east against *Order Shipped* in west, under four rules files, resolved in both regions.

Two real regions, MirrorMaker both ways, and per rules file a topic with a resolver in each region, as operators run them. What is shown at
the end is what `mrc conflicts` says; that the regions agree is its comparison's word, and that of the two regions' conflicts beside.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import yaml
from confluent_kafka import KafkaError, Producer

from mrc.adapters.kafka.access import Access
from mrc.adapters.kafka.cluster import KafkaCluster
from mrc.adapters.kafka.logs import KafkaLogs
from mrc.adapters.mirrormaker.connect import ConnectReplicator
from mrc.client import Seen, Stamper
from mrc.core.errors import MrcError
from mrc.core.model import Region
from mrc.sandbox import processes
from mrc.sandbox.connect import flow_connector
from mrc.sandbox.layout import REGIONS, Options, other
from mrc.sandbox.world import Sandbox

FOLDER = Path(__file__).with_name("rules")
FILES = ("state-precedence", "last-update-wins", "manual", "without-headers")
ORDER = "order-17"
CALL_S = 10.0
COMMAND_S = 120.0
LOOKED_S = 2.0
"""Resolvers look twice a second at what has been copied; after that long they have, and producers that stamp nothing have seen it."""

IN_TIME_S = 240.0
"""How long anything may take to appear, on a machine that is busy with other things."""

Say = Callable[[str], None]


class Scene(msgspec.Struct, frozen=True):
    """One rules file.

    Attributes:
        name: of the file, and of the replication group.
        topic: what the file is about.
        stamped: its producers stamp their events.
        config: the configuration with that replication group.
    """

    name: str
    topic: str
    stamped: bool
    config: Path


class ConflictDemo:
    """One run on one sandbox. ``say`` is told what happens; ``show`` gets the explanations."""

    def __init__(self, state: Path, say: Say, show: Say) -> None:
        self.sandbox = Sandbox(state)
        self._say = say
        self._show = show

    def run(self) -> None:
        """Run it all; the caller takes the sandbox down.

        Raises:
            MrcError: ``SANDBOX_FAILED`` where the regions do not agree, or something does not come in time.
        """
        self._say("two regions, MirrorMaker 2 both ways")
        self.sandbox.up(Options(policy="default"), lambda part, what: self._say(f"  {part}: {what}"))
        scenes = [self._scene(name) for name in FILES]
        clusters = {region: KafkaCluster(region, self._access(region), None, CALL_S) for region in REGIONS}
        try:
            self._make_topics(scenes, clusters)
            for scene in scenes:
                for region in REGIONS:
                    self._start_resolver(scene, region)
            self._copy(scenes, clusters)
        finally:
            for cluster in clusters.values():
                cluster.close()
        for scene in scenes:
            self._write(scene)
        for scene in scenes:
            self._judge(scene)
        self._say("both regions agree under all four rules files")

    # ---------------------------------------------------------------- preparing

    def _scene(self, name: str) -> Scene:
        rules = FOLDER / f"{name}.yaml"
        (entity,) = yaml.safe_load(rules.read_text())["entities"]
        (topic,) = entity["topics"]
        settings = yaml.safe_load(self.sandbox.config_path.read_text())
        settings["replication_groups"][0] |= {"name": name, "mode": "active-active", "topics": [topic], "rules": str(rules)}
        config = self.sandbox.state.folder / f"{name}.yaml"
        config.write_text(yaml.safe_dump(settings))
        return Scene(name, topic, entity.get("detection", "causal") == "causal", config)

    def _access(self, region: str) -> Access:
        login = self.sandbox.client_config(region, "admin")
        return Access(login["bootstrap.servers"], "SASL_PLAINTEXT", login["sasl.mechanism"], "admin", login["sasl.password"])

    def _make_topics(self, scenes: list[Scene], clusters: Mapping[Region, KafkaCluster]) -> None:
        for region, cluster in clusters.items():
            for scene in scenes:
                cluster.make_topic_like(scene.topic, 1, {})
            self._until(f"topics in {region}", partial(_exist, cluster, [one.topic for one in scenes]))

    def _start_resolver(self, scene: Scene, region: str) -> None:
        part = f"resolver-{scene.name}-{region}"
        state = self.sandbox.state.folder / part
        argv = [sys.executable, "-m", "mrc", "--config", str(scene.config), "resolver", "run", "--region", region, "--state", str(state)]
        processes.spawn(self.sandbox.state.folder, part, argv, self.sandbox.log_path(part))

    def _copy(self, scenes: list[Scene], clusters: Mapping[Region, KafkaCluster]) -> None:
        """Let the flows copy the topics and the resolvers' marks, once there are any, and wait for the copies."""
        names = [name for scene in scenes for name in (scene.topic, f"mrc.watermarks.{scene.topic}")]
        for region, cluster in clusters.items():
            self._until(f"the resolvers' topics in {region}", partial(_exist, cluster, names))
        for connect, flow in self._flows():
            connect.configure(flow, {**connect.settings(flow), "topics": ",".join(names)})
        for region, cluster in clusters.items():
            self._until(f"copies in {region}", partial(_exist, cluster, [f"{other(region)}.{name}" for name in names]))

    def _flows(self) -> list[tuple[ConnectReplicator, str]]:
        """Both flows, each with the Connect that it runs on."""
        return [
            (ConnectReplicator(self.sandbox.layout.connect_url(region), CALL_S), flow_connector(other(region), region))
            for region in REGIONS
        ]

    # ---------------------------------------------------------------- what happens

    def _write(self, scene: Scene) -> None:
        """The order is placed in east and seen in both regions; then west ships it, and east, which has not heard of that, cancels it.

        Who stamps events says what he has seen, however soon the copies come. Of others it is the copies that tell, so nothing is
        copied meanwhile.
        """
        self._event(scene, "east", "Placed", Seen())
        east, west = (self._seen(scene, region) for region in REGIONS)
        with contextlib.nullcontext() if scene.stamped else self._cut():
            self._event(scene, "west", "Shipped", west)
            time.sleep(1.0)  # the cancellation is the later event, also where the other one has come late into its log
            self._event(scene, "east", "Cancelled", east)
        cut = "" if scene.stamped else " while the links were cut"
        self._say(f"{scene.name}: {ORDER} was placed in east and seen in both; then Shipped in west, and Cancelled in east{cut}")

    @contextlib.contextmanager
    def _cut(self) -> Iterator[None]:
        """Let nothing be copied."""
        time.sleep(LOOKED_S)
        for connect, flow in self._flows():
            connect.stop(flow)
            self._until(f"the end of {flow}", partial(_has_stopped, connect, flow))
        try:
            yield
        finally:
            for connect, flow in self._flows():
                connect.resume(flow)

    def _event(self, scene: Scene, region: str, type: str, seen: Seen) -> None:
        failures: list[KafkaError] = []
        settings = {"enable.idempotence": True, "message.timeout.ms": int(IN_TIME_S * 1000)}
        producer = Producer({**self.sandbox.client_config(region, "admin"), **settings})
        producer.list_topics(scene.topic, timeout=IN_TIME_S)  # connected before the event gets its clock, it is not late
        headers: Any = Stamper(region).stamp(seen, f"{ORDER}/{type}") if scene.stamped else None
        body = json.dumps({"event": type}).encode()
        producer.produce(
            scene.topic, body, ORDER.encode(), headers=headers, on_delivery=lambda error, _: failures.append(error) if error else None
        )
        if producer.flush(IN_TIME_S) or failures:
            raise MrcError("SANDBOX_FAILED", f"{type} was not written to {scene.topic}: {failures or 'no answer'}", where=region)

    def _seen(self, scene: Scene, region: str) -> Seen:
        """Wait until the order stands in a region, and return what has been seen of it there."""
        seen = Seen()
        logs = KafkaLogs(region, self._access(region), CALL_S)

        def stands() -> bool:
            found = [record for batch in logs.read(logs.spans([f"mrc.resolved.{scene.topic}"])) for record in batch]
            for record in found:
                seen.add(record.headers)
            return bool(found)

        try:
            self._until(f"{ORDER} in mrc.resolved.{scene.topic} of {region}", stands)
        finally:
            logs.close()
        return seen

    # ---------------------------------------------------------------- judging

    def _judge(self, scene: Scene) -> None:
        """Wait until the conflict is final in both regions, explain it, and compare."""
        told: dict[str, list[dict[str, Any]]] = {}

        def decided() -> bool:
            told.update({region: json.loads(self._mrc(scene, "conflicts", "list", "--region", region)) for region in REGIONS})
            return all(told.values())

        self._until(f"the conflict about {ORDER} by {scene.name}", decided)
        self._show(f"\n--- {scene.name}.yaml\n\n{(FOLDER / f'{scene.name}.yaml').read_text()}")
        id = told[REGIONS[0]][0]["id"]
        self._show(self._mrc(scene, "conflicts", "show", id, output="table", may_find=True))
        self._show(self._mrc(scene, "conflicts", "compare", "--wait", "60", output="table", may_find=True))
        compared = json.loads(self._mrc(scene, "conflicts", "compare", "--wait", "60", may_find=True))
        east, west = (told[region] for region in REGIONS)
        if east != west or not compared["agrees"] or not compared["entities"]:
            raise MrcError("SANDBOX_FAILED", f"the regions do not agree by {scene.name}: {east} and {west}, {compared['differences']}")
        self._say(f"{scene.name}: both regions agree, {east[0]['winner']} stands{' until a person decides' if east[0]['open'] else ''}")

    def _mrc(self, scene: Scene, *arguments: str, output: str = "json", may_find: bool = False) -> str:
        """Run a command of mrc and return its standard output. Raises ``SANDBOX_FAILED`` with its last words when it fails."""
        command = [sys.executable, "-m", "mrc", "--config", str(scene.config), "--output", output, *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S, check=False)
        except subprocess.TimeoutExpired:
            raise MrcError("SANDBOX_FAILED", f"`mrc {' '.join(arguments)}` did not end within {COMMAND_S:.0f} s") from None
        if done.returncode not in ((0, 3) if may_find else (0,)):
            raise MrcError("SANDBOX_FAILED", f"`mrc {' '.join(arguments)}` ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
        return done.stdout

    def _until(self, what: str, holds: Callable[[], bool]) -> None:
        until_s = time.monotonic() + IN_TIME_S
        while not holds():
            if time.monotonic() > until_s:
                raise MrcError("SANDBOX_FAILED", f"{what}: not there after {IN_TIME_S:.0f} s; the logs of the sandbox may say why")
            time.sleep(0.3)


def _exist(cluster: KafkaCluster, topics: Sequence[str]) -> bool:
    return len(cluster.topics(topics)) == len(topics)


def _has_stopped(connect: ConnectReplicator, flow: str) -> bool:
    found = connect.status(flow)
    return found.state == "STOPPED" and not found.tasks

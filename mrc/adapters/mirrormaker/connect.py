"""MirrorMaker 2's source connectors through Connect's REST: the `Replicator` port.

Connect stores, per source partition, the offset of the last *copied* record; the port speaks of the *next* one. The translation is here
and nowhere else.
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any, Final

from mrc.core.errors import MrcError
from mrc.core.model import Offset, TopicPartition
from mrc.ports import FlowStatus

_REBALANCING: Final = 409
_RETRY_S: Final = 0.2
_SOURCE_CONNECTOR: Final = "MirrorSourceConnector"

_NEVER_BEGAN: Final = "taskConfigGeneration"
"""What an exactly-once worker's 500 names when it is to fence a flow's old tasks and has never known any.

`DistributedHerder.doFenceZombieSourceTasks` (Kafka 4.3) unboxes the generation of a connector's tasks, which is null until some were
written. It gets there once positions were set before, which counts the tasks, 0, and the connector was stopped again since. Neither a
new worker nor a connector made anew gets out of there: the count outlives both. Tasks do.
"""

_FAILING: Final = ("source.consumer.metrics.recording.level", "no-task-begins")
"""A setting with which a source connector has tasks and none of them copies: their consumers refuse it before they ask anybody."""

_BEGINS_S: Final = 10.0
"""How long such tasks may take to be written."""


class ConnectReplicator:
    """The port `Replicator` of one Connect cluster.

    Args:
        url: the base URL of a worker.
        deadline_s: what any call may take, its retries during a rebalance included.
    """

    def __init__(self, url: str, deadline_s: float) -> None:
        self._url = url.rstrip("/")
        self._deadline_s = deadline_s

    def status(self, connector: str) -> FlowStatus:
        """See `Replicator.status`."""
        answer = self._call("GET", f"{_path(connector)}/status", absent_ok=True)
        if answer is None:
            return FlowStatus(state="ABSENT", tasks=())
        tasks = sorted(answer["tasks"], key=lambda task: int(task["id"]))
        traces = [part["trace"] for part in (*tasks, answer["connector"]) if part.get("trace")]
        return FlowStatus(
            state=answer["connector"]["state"],
            tasks=tuple(task["state"] for task in tasks),
            trace=traces[0].strip().splitlines()[0] if traces else "",
        )

    def settings(self, connector: str) -> dict[str, str]:
        """See `Replicator.settings`."""
        answer = self._call("GET", f"{_path(connector)}/config", absent_ok=True)
        return {} if answer is None else dict(answer)

    def configurations(self) -> dict[str, dict[str, str]]:
        """See `Replicator.configurations`."""
        listed = self._call("GET", "/connectors?expand=info")
        return {name: dict(entry["info"]["config"]) for name, entry in listed.items()}

    def create(self, connector: str, settings: Mapping[str, str]) -> None:
        """See `Replicator.create`."""
        if not self.settings(connector):
            body = {"name": connector, "config": {**settings, "name": connector}, "initial_state": "STOPPED"}
            self._call("POST", "/connectors", body)

    def configure(self, connector: str, settings: Mapping[str, str]) -> None:
        """See `Replicator.configure`. Connect would make a connector that is not there, and run it: so it is looked for first."""
        if not self.settings(connector):
            raise MrcError("CONNECT_REFUSED", "there is no such connector", where=connector)
        self._call("PUT", f"{_path(connector)}/config", {**settings, "name": connector})

    def delete(self, connector: str) -> None:
        """See `Replicator.delete`."""
        self._call("DELETE", _path(connector), absent_ok=True)

    def stop(self, connector: str) -> None:
        """See `Replicator.stop`."""
        self._call("PUT", f"{_path(connector)}/stop")

    def resume(self, connector: str) -> None:
        """See `Replicator.resume`."""
        self._restored(connector)
        self._call("PUT", f"{_path(connector)}/resume")

    def positions(self, connector: str) -> dict[TopicPartition, Offset]:
        """See `Replicator.positions`."""
        answer = self._call("GET", f"{_path(connector)}/offsets")
        found: dict[TopicPartition, Offset] = {}
        for entry in answer["offsets"]:
            partition, offset = entry["partition"], entry["offset"]
            if "topic" in partition and offset:
                found[TopicPartition(partition["topic"], int(partition["partition"]))] = Offset(int(offset["offset"]) + 1)
        return found

    def set_positions(self, connector: str, positions: Mapping[TopicPartition, Offset]) -> None:
        """See `Replicator.set_positions`.

        Connect accepts a wrong alias, topic or offset with a 200, so callers range-check against the source and read back.
        A position of 0 becomes null, "nothing copied yet", because -1 is refused.
        """
        negative = [tp for tp, position in positions.items() if position < 0]
        if negative:
            raise MrcError("CONNECT_REFUSED", "a position is below 0", where=f"{connector} {negative[0]}")
        if not positions:
            return
        settings = self._restored(connector)
        alias = settings.get("source.cluster.alias", "")
        if not alias:
            raise MrcError("CONNECT_REFUSED", "the connector has no source.cluster.alias", where=connector)
        offsets = [
            {
                "partition": {"cluster": alias, "topic": tp.topic, "partition": tp.partition},
                "offset": {"offset": position - 1} if position > 0 else None,
            }
            for tp, position in sorted(positions.items())
        ]
        try:
            self._call("PATCH", f"{_path(connector)}/offsets", {"offsets": offsets})
        except MrcError as error:
            able = settings.get("connector.class", "").endswith(_SOURCE_CONNECTOR) and _FAILING[0] not in settings
            if _NEVER_BEGAN not in error.message or not able:
                raise
            self._begin(connector, settings)
            message = "Connect takes positions of a flow that had never run only once it has had tasks; it has now, and they copied nothing"
            raise MrcError("CONNECT_REFUSED", message, where=connector, retryable=True) from error

    def _begin(self, connector: str, settings: Mapping[str, str]) -> None:
        """Let a STOPPED connector have tasks that fail before they copy, and stop it.

        The setting that makes them fail is taken away only from a stopped connector. Whoever is killed before that leaves it there, and
        the next call that sets positions or resumes takes it away first.
        """
        until_s = time.monotonic() + _BEGINS_S
        self.configure(connector, {**settings, _FAILING[0]: _FAILING[1]})
        self._call("PUT", f"{_path(connector)}/resume")
        while not self._call("GET", _path(connector))["tasks"]:
            if time.monotonic() > until_s:
                self._restored(connector)
                raise MrcError("CONNECT_REFUSED", f"it has no tasks after {_BEGINS_S:.0f} s", where=connector, retryable=True)
            time.sleep(_RETRY_S)
        self._restored(connector)

    def _restored(self, connector: str) -> dict[str, str]:
        """Return the connector's settings, without the one that makes its tasks fail; where that was there, it is stopped first."""
        settings = self.settings(connector)
        if settings.get(_FAILING[0]) != _FAILING[1]:
            return settings
        self.stop(connector)
        without = {key: value for key, value in settings.items() if key != _FAILING[0]}
        self.configure(connector, without)
        return without

    def _call(self, method: str, path: str, body: object = None, *, absent_ok: bool = False) -> Any:  # JSON of Connect's own shapes
        """Return the decoded answer, or None for a permitted 404. A rebalance (409) is waited for, up to the deadline."""
        until_s = time.monotonic() + self._deadline_s
        while True:
            left_s = until_s - time.monotonic()
            try:
                return self._once(method, path, body, max(left_s, 0.05))
            except urllib.error.HTTPError as error:
                reason = _reason(error)
                if error.code == http.HTTPStatus.NOT_FOUND and absent_ok:
                    return None
                rebalancing = error.code == _REBALANCING or (error.code == http.HTTPStatus.INTERNAL_SERVER_ERROR and "rebalance" in reason)
                if rebalancing and left_s > _RETRY_S:
                    time.sleep(_RETRY_S)
                    continue
                raise MrcError("CONNECT_REFUSED", f"{error.code}: {reason}", where=f"{method} {path}", retryable=rebalancing) from error
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise MrcError("CONNECT_UNREACHABLE", str(error), where=self._url, retryable=True) from error

    def _once(self, method: str, path: str, body: object, timeout_s: float) -> Any:  # JSON of Connect's own shapes
        request = urllib.request.Request(  # the scheme is checked by the configuration
            self._url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Accept": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            data = answer.read()
        return json.loads(data) if data else {}


def _path(connector: str) -> str:
    return f"/connectors/{urllib.parse.quote(connector, safe='')}"


def _reason(error: urllib.error.HTTPError) -> str:
    """Return Connect's own message."""
    text = error.read().decode(errors="replace")
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text.strip()[:200]

"""The sandbox's ZooKeeper ensemble: one server per region and a witness, and the first active-region record.

Refuses to touch a record that exists: which region is active is the applications' and mrc's history, not the sandbox's.
"""

from __future__ import annotations

import socket
from pathlib import Path

from kazoo.client import KazooClient
from kazoo.exceptions import KazooException, NodeExistsError
from kazoo.handlers.threading import KazooTimeoutError

from mrc.core.errors import MrcError
from mrc.core.model import ActiveRecord, Epoch, Region, encode
from mrc.sandbox import layout as places
from mrc.sandbox.layout import Layout, State

ROOT = "/mrc"
TICK_MS = 500
SILENCE_MS = 2000
"""A server that looks for a leader asks at least so often, so that one which was cut off is soon back."""
CONNECT_TIMEOUT_S = 60.0


def zoo_cfg(layout: Layout, state: State, site: str) -> str:
    """Return the server's zoo.cfg. Ticks are short, so that sessions of a few seconds can be had and a lost server shows."""
    ports = layout.ports
    members = [
        f"server.{number}={places.HOST}:{layout.port(f'{name}-zookeeper.peer', site)}:{layout.port(f'{name}-zookeeper.election', site)}"
        for number, name in enumerate(places.sites(), start=1)
    ]
    return "\n".join(
        [
            f"tickTime={TICK_MS}",
            "initLimit=20",
            "syncLimit=10",
            f"minSessionTimeout={2 * TICK_MS}",
            "maxSessionTimeout=60000",
            f"dataDir={state.data(f'{site}-zookeeper')}",
            f"clientPort={ports[f'{site}-zookeeper.client']}",
            f"clientPortAddress={places.HOST}",
            "admin.enableServer=false",
            "4lw.commands.whitelist=srvr",
            "preAllocSize=1024",
            "maxClientCnxns=0",
            *members,
            "",
        ]
    )


def prepare(layout: Layout, state: State, site: str) -> Path:
    """Write the server's configuration and identity, and return the configuration's path."""
    part = f"{site}-zookeeper"
    state.data(part).mkdir(parents=True, exist_ok=True)
    (state.data(part) / "myid").write_text(f"{places.sites().index(site) + 1}\n")
    path = state.settings(part)
    places.write_private(path, zoo_cfg(layout, state, site))
    return path


def serves(port: int) -> bool:
    """Whether the server on this port belongs to a quorum, as its ``srvr`` command says."""
    try:
        with socket.create_connection((places.HOST, port), timeout=2.0) as link:
            link.sendall(b"srvr")
            link.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: link.recv(4096), b""))
    except OSError:
        return False
    return b"Mode: leader" in answer or b"Mode: follower" in answer


def write_first_record(layout: Layout) -> bool:
    """Write the first active-region record where there is none; return whether it was written.

    Raises ``SANDBOX_FAILED`` when the ensemble does not answer.
    """
    record = ActiveRecord(region=Region(layout.options.active), state="open", epoch=Epoch(1))
    client = KazooClient(hosts=layout.zookeeper(), timeout=4.0)
    try:
        client.start(timeout=CONNECT_TIMEOUT_S)
        client.create(f"{ROOT}/groups/{places.REPLICATION_GROUP}/record", encode(record), makepath=True)
    except NodeExistsError:
        return False
    except (KazooTimeoutError, KazooException) as error:
        raise MrcError(
            "SANDBOX_FAILED", f"ZooKeeper took no active-region record: {error}", where=layout.zookeeper(), retryable=True
        ) from error
    finally:
        client.stop()
        client.close()
    return True

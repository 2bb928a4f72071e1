"""The mrc.yaml that describes the sandbox to mrc. Written once: whoever edits it keeps the edit."""

from __future__ import annotations

from pathlib import Path

import yaml

from mrc.sandbox import layout as places
from mrc.sandbox.connect import flow_connector
from mrc.sandbox.layout import Layout, State


def document(layout: Layout) -> dict[str, object]:
    """Return the configuration as plain values; paths are relative to the state folder."""
    return {
        "version": 1,
        "zookeeper": {"connect": layout.zookeeper(), "root": "/mrc", "session_timeout_ms": 4000},
        "regions": {region: _region(layout, region) for region in places.REGIONS},
        "replication_groups": [
            {
                "name": places.REPLICATION_GROUP,
                "mode": "active-passive",
                "policy": layout.options.policy,
                "topics": list(places.TOPICS),
                "groups": list(places.GROUPS),
                "principals": {
                    "writers": ["User:producer"],
                    "readers": ["User:consumer"],
                    "exempt": ["User:mrc", "User:admin"],
                    "replicators": ["User:mm2"],
                },
                "probe": {"username": "probe", "password_file": "secrets/probe"},
                "flows": [
                    {
                        "source": source,
                        "target": places.other(source),
                        "connector": flow_connector(source, places.other(source)),
                    }
                    for source in places.REGIONS
                ],
                "objectives": {"rpo_s": 5, "rto_s": 15},
            }
        ],
    }


def write(layout: Layout, state: State) -> None:
    """Write mrc.yaml where it is missing."""
    if not state.config.exists():
        head = "# Written by `mrc sandbox up`; kept as it is from then on.\n"
        places.write_private(state.config, head + yaml.safe_dump(document(layout), sort_keys=False))


def seen_from(state: State, region: str) -> Path:
    """Return the mrc.yaml for agents of ``region``: where sites are linked a copy of the present one that leads through the links."""
    layout = state.layout()
    if layout is None or not layout.options.links:
        return state.config
    there = places.other(region)
    text = state.config.read_text().replace(layout.zookeeper(), layout.zookeeper(region))
    path = state.config.with_name(f"mrc-{region}.yaml")
    places.write_private(path, text.replace(layout.connect_url(there), layout.connect_url(there, region)))
    return path


def _region(layout: Layout, region: str) -> dict[str, object]:
    return {
        "kafka": {
            "bootstrap": layout.bootstrap(region),
            "bootstrap_remote": layout.bootstrap(region, "remote"),
            "security": {
                "protocol": "SASL_PLAINTEXT",
                "mechanism": "SCRAM-SHA-512",
                "username": "mrc",
                "password_file": "secrets/mrc",
            },
            "super_users": ["User:broker", "User:admin"],
        },
        "connect": {"url": layout.connect_url(region)},
        "agents": [
            {
                "id": agent.name,
                "grpc": f"{places.HOST}:{agent.port}",
                "metrics": f"{places.HOST}:{layout.ports[f'{agent.name}.metrics']}",
            }
            for agent in layout.agents()
            if agent.region == region
        ],
    }

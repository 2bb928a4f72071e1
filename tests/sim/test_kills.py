"""No act escapes the kill points: whoever gives a port a new method has to say here whether it only reads."""

from __future__ import annotations

from mrc import ports
from mrc.sim.kills import ACTS

PORTS = (ports.Tree, ports.Emitter, ports.Cluster, ports.Replicator, ports.Hook, ports.Route)

ONE_BY_ONE = {"commit_positions_of"}
"""Told apart by the kill switch itself, into one act per group."""

HARMLESS = {"ensure", "watch", "within", "close"}
"""They leave nothing behind that anybody decides by: empty folders, a callback, a time-out, a connection."""

READS = {
    "bindings",
    "broker_settings",
    "children",
    "commits",
    "configurations",
    "ends",
    "full_path",
    "get",
    "get_all",
    "group",
    "group_ids",
    "groups",
    "last_records",
    "lease_s",
    "load",
    "other_groups",
    "owns",
    "positions",
    "positions_of",
    "probe",
    "read",
    "reader",
    "records",
    "session_id",
    "settings",
    "starts",
    "status",
    "topic_names",
    "topics",
}


def test_every_method_of_a_port_that_acts_is_a_kill_point() -> None:
    methods = {name for port in PORTS for name, found in vars(port).items() if callable(found) and not name.startswith("_")}
    assert methods - READS - HARMLESS - ONE_BY_ONE == ACTS
    assert methods >= READS | HARMLESS | ONE_BY_ONE

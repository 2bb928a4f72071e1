"""Settings and runbook files: load, validate, explain."""

from mrc.config.loading import check, load
from mrc.config.located import Problem
from mrc.config.runbook import load_runbook, runbook_folder
from mrc.config.settings import (
    AgentSettings,
    ConnectSettings,
    FlowSettings,
    GrpcSettings,
    KafkaSettings,
    Objectives,
    Principals,
    ProbeSettings,
    RegionSettings,
    ReplicationGroup,
    RoutingSettings,
    Secret,
    SecuritySettings,
    Settings,
    TlsSettings,
    ZooKeeperSettings,
)

__all__ = [
    "AgentSettings",
    "ConnectSettings",
    "FlowSettings",
    "GrpcSettings",
    "KafkaSettings",
    "Objectives",
    "Principals",
    "ProbeSettings",
    "Problem",
    "RegionSettings",
    "ReplicationGroup",
    "RoutingSettings",
    "Secret",
    "SecuritySettings",
    "Settings",
    "TlsSettings",
    "ZooKeeperSettings",
    "check",
    "load",
    "load_runbook",
    "runbook_folder",
]

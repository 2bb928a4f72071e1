"""From ``mrc.yaml`` to an application's Kafka client settings."""

from __future__ import annotations

from mrc.config import Settings
from mrc.core.errors import MrcError
from mrc.core.model import Region


def client_config(settings: Settings, region: Region, username: str = "", password: str = "") -> dict[str, str]:
    """Return librdkafka's connection settings of ``region`` for an application's own user, from inside that region.

    Args:
        settings: the loaded ``mrc.yaml``.
        region: one of its regions.
        username: the application's user; needed where the region's protocol is SASL.
        password: its password.

    Raises:
        MrcError: ``UNKNOWN_REGION``.
    """
    kafka = settings.regions.get(region)
    if kafka is None:
        raise MrcError("UNKNOWN_REGION", f"no region {region!r}; known: {', '.join(sorted(settings.regions))}")
    security = kafka.kafka.security
    config = {"bootstrap.servers": kafka.kafka.bootstrap, "security.protocol": security.protocol}
    if security.protocol.startswith("SASL_"):
        config |= {"sasl.mechanism": security.mechanism or "", "sasl.username": username, "sasl.password": password}
    if security.ca_file is not None:
        config["ssl.ca.location"] = str(settings.base / security.ca_file)
    return config

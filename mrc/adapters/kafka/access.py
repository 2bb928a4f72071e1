"""How a Kafka cluster is reached and as whom. A password is never part of a text about it."""

from __future__ import annotations

import logging
from typing import Literal

import msgspec

Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]

ClientConfig = dict[str, str | int | float | bool]
"""librdkafka's own settings by name."""

DRIVER_LOG = logging.getLogger("mrc.kafka.driver")
"""librdkafka's log lines; its errors come back as errors, so nothing is printed unless somebody adds a handler."""
DRIVER_LOG.addHandler(logging.NullHandler())
DRIVER_LOG.propagate = False


class Access(msgspec.Struct, frozen=True):
    """One way into one cluster.

    Attributes:
        bootstrap: ``host:port``, comma separated.
        protocol: Kafka's security protocol.
        mechanism: SASL mechanism; empty without SASL.
        username: SASL user name; empty without SASL.
        password: SASL password.
        ca_file: certificates to trust; empty means the system's.
    """

    bootstrap: str
    protocol: Protocol = "PLAINTEXT"
    mechanism: str = ""
    username: str = ""
    password: str = ""
    ca_file: str = ""

    def __repr__(self) -> str:
        return f"Access({self.bootstrap}, {self.protocol}, {self.mechanism}, {self.username}, password=***)"

    def as_principal(self, username: str, password: str) -> Access:
        """Return the same way in for somebody else."""
        return msgspec.structs.replace(self, username=username, password=password)

    def client_config(self) -> ClientConfig:
        """Return what every librdkafka client of this access is built with.

        A cluster that returns is found again within half a second; a client that is not the broker's newest friend stays quiet.
        """
        config: ClientConfig = {
            "bootstrap.servers": self.bootstrap,
            "security.protocol": self.protocol,
            "client.id": "mrc",
            "reconnect.backoff.ms": 20,
            "reconnect.backoff.max.ms": 500,
            "socket.connection.setup.timeout.ms": 2000,
            "socket.keepalive.enable": True,
            "socket.nagle.disable": True,
            "log.connection.close": False,
            "allow.auto.create.topics": False,
        }
        if self.mechanism:
            config |= {"sasl.mechanism": self.mechanism, "sasl.username": self.username, "sasl.password": self.password}
        if self.ca_file:
            config["ssl.ca.location"] = self.ca_file
        return config

"""A whole configuration file, and a way to write it with changes."""

from __future__ import annotations

from pathlib import Path

EXAMPLE = """\
version: 1
zookeeper:
  connect: 127.0.0.1:2181,127.0.0.1:2182
regions:
  east:
    kafka:
      bootstrap: 127.0.0.1:9092
      bootstrap_remote: 127.0.0.1:9192
      security: {protocol: SASL_PLAINTEXT, mechanism: SCRAM-SHA-512, username: mrc, password_file: secrets/mrc}
    connect: {url: "http://127.0.0.1:8083"}
    agents:
      - {id: east-a, grpc: "127.0.0.1:7001", metrics: "127.0.0.1:7101"}
      - {id: east-b, grpc: "127.0.0.1:7002", metrics: "127.0.0.1:7102"}
  west:
    kafka:
      bootstrap: 127.0.0.1:9093
    connect: {url: "http://127.0.0.1:8084"}
    agents:
      - {id: west-a, grpc: "127.0.0.1:7011", metrics: "127.0.0.1:7111"}
replication_groups:
  - name: orders
    mode: active-passive
    policy: identity
    topics: [orders, payments]
    groups: [billing, shipping]
    principals:
      writers: ["User:producer"]
      readers: ["User:consumer"]
      exempt: ["User:mm2", "User:mrc"]
    probe: {username: probe, password_file: secrets/probe}
    flows:
      - {source: east, target: west, connector: mrc.orders.east-west}
      - {source: west, target: east, connector: mrc.orders.west-east}
    objectives: {rpo_s: 5, rto_s: 15}
    routing: {command: ["./flip", "--region"]}
"""

PASSWORD = "correct horse"

TSIG_SECRET = "YSBzZWNyZXQgb2Yg//BuYW1lIHNlcnZlcg=="

ROUTED_BY_DNS = """\
    routing:
      dns:
        - server: 192.0.2.53:53
          zone: example.com
          name: Kafka.example.com.
          key_file: secrets/dns.key
          values: {east: [192.0.2.1, 192.0.2.2], west: [198.51.100.1]}
"""

ROUTED_BY_HAPROXY = """\
    routing:
      haproxy:
        - address: /run/haproxy.sock
          backend: kafka
          servers: {east: [e1], west: [w1]}
"""


def write_example(folder: Path, changes: dict[str, str] | None = None) -> Path:
    """Write the example, with each key of `changes` (it must be there) replaced by its value."""
    text = EXAMPLE
    for old, new in (changes or {}).items():
        assert old in text
        text = text.replace(old, new, 1)
    secrets = folder / "secrets"
    secrets.mkdir(exist_ok=True)
    (secrets / "mrc").write_text(f"{PASSWORD}\n")
    (secrets / "probe").write_text("probing\n")
    (secrets / "dns.key").write_text(f'# of the zone\nkey "mrc." {{\n\talgorithm hmac-sha256;\n\tsecret "{TSIG_SECRET}";\n}};\n')
    (secrets / "cut.key").write_text(f'key "mrc." {{ algorithm hmac-sha256; secret "{TSIG_SECRET[:-1]}"; }};')
    (secrets / "old.key").write_text(f'key "mrc." {{ algorithm hmac-md5.sig-alg.reg.int; secret "{TSIG_SECRET}"; }};')
    path = folder / "mrc.yaml"
    path.write_text(text)
    return path


def line_of(text: str, path: Path) -> int:
    """The first line of the file that has `text` in it."""
    return next(number for number, line in enumerate(path.read_text().splitlines(), 1) if text in line)

"""mrc: a multi-region replication coordinator for Apache Kafka."""

__version__ = "0.1.0"

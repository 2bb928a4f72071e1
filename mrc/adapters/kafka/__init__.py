"""Kafka through librdkafka."""

from mrc.adapters.kafka.access import Access
from mrc.adapters.kafka.cluster import KafkaCluster

__all__ = ["Access", "KafkaCluster"]

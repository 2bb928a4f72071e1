"""The world in memory: deterministic, single-threaded, without wall time. The fakes implement mrc's ports, not Kafka."""

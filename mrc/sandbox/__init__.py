"""Two real regions on one machine: brokers, Connect with MirrorMaker 2, a ZooKeeper ensemble, and agents on request.

A newcomer's first Kafka pair and the world of the end-to-end tests. Throw-away: nothing here is a way to run Kafka
in earnest.
"""

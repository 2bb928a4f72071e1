"""ZooKeeper through kazoo."""

from mrc.adapters.zookeeper.tree import ZooKeeperTree

__all__ = ["ZooKeeperTree"]

"""MirrorMaker 2 behind Connect's REST."""

from mrc.adapters.mirrormaker.connect import ConnectReplicator

__all__ = ["ConnectReplicator"]

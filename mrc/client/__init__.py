"""What applications may import: following the active region, starting Kafka clients anew with every opening, stamping events.

A client is never redirected: an idempotent producer that is carried to another cluster (by a proxy, by DNS) may lose
records that were acknowledged to it. With every opening of a region the followers here make new instances.
"""

from mrc.client.active import ActiveRegion
from mrc.client.configs import client_config
from mrc.client.consumer import FollowingConsumer
from mrc.client.place import Place, Sighting
from mrc.client.producer import Acknowledged, FollowingProducer, Unacknowledged
from mrc.client.stamping import Seen, Stamper

__all__ = [
    "Acknowledged",
    "ActiveRegion",
    "FollowingConsumer",
    "FollowingProducer",
    "Place",
    "Seen",
    "Sighting",
    "Stamper",
    "Unacknowledged",
    "client_config",
]

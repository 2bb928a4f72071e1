"""ACL bindings between Kafka's form and the port's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Literal

from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

from mrc.ports import Binding

Resource = Literal["topic", "group", "cluster", "transactional_id"]

_RESOURCES: Final[dict[ResourceType, Resource]] = {
    ResourceType.TOPIC: "topic",
    ResourceType.GROUP: "group",
    ResourceType.BROKER: "cluster",
    ResourceType.TRANSACTIONAL_ID: "transactional_id",
}
_TYPES: Final[dict[str, ResourceType]] = {word: kind for kind, word in _RESOURCES.items()}

_ANY: Any = None
"""The driver's wildcard for a name; its signature forgets it."""

EVERY_BINDING: Final = AclBindingFilter(
    ResourceType.ANY, _ANY, ResourcePatternType.ANY, _ANY, _ANY, AclOperation.ANY, AclPermissionType.ANY
)


def from_kafka(found: Iterable[AclBinding], *, everywhere: bool = False) -> frozenset[Binding]:
    """Return the bindings that the port can express.

    An ALLOW for one host is told as if for every host, because it names a principal that may act and has to be refused; a DENY for
    one host is left out, because it refuses only there. With ``everywhere`` both are left out.
    """
    return frozenset(_binding(acl) for acl in found if acl.restype in _RESOURCES and (acl.host == "*" or (_allows(acl) and not everywhere)))


def to_kafka(binding: Binding) -> AclBinding:
    """Return Kafka's form."""
    return AclBinding(*_fields(binding))


def exactly(binding: Binding) -> AclBindingFilter:
    """Return the filter that matches this binding only."""
    return AclBindingFilter(*_fields(binding))


def _allows(acl: AclBinding) -> bool:
    return acl.permission_type is AclPermissionType.ALLOW


def _binding(acl: AclBinding) -> Binding:
    return Binding(
        resource=_RESOURCES[ResourceType(acl.restype)],
        name=acl.name,
        pattern="prefixed" if acl.resource_pattern_type is ResourcePatternType.PREFIXED else "literal",
        principal=acl.principal,
        operation=AclOperation(acl.operation).name.lower(),
        permission="allow" if _allows(acl) else "deny",
    )


def _fields(binding: Binding) -> tuple[ResourceType, str, ResourcePatternType, str, str, AclOperation, AclPermissionType]:
    return (
        _TYPES[binding.resource],
        binding.name,
        ResourcePatternType[binding.pattern.upper()],
        binding.principal,
        "*",
        AclOperation[binding.operation.upper()],
        AclPermissionType[binding.permission.upper()],
    )

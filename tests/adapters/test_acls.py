"""ACLs in Kafka's form and the port's: whom a right for one host names, and where it holds."""

from __future__ import annotations

from confluent_kafka.admin import AclBinding, AclOperation, AclPermissionType, ResourcePatternType, ResourceType

from mrc.adapters.kafka.acls import from_kafka
from mrc.ports import Binding


def acl(principal: str, host: str, permission: AclPermissionType) -> AclBinding:
    return AclBinding(ResourceType.TOPIC, "orders", ResourcePatternType.LITERAL, principal, host, AclOperation.WRITE, permission)


def test_a_right_for_one_host_names_its_principal_and_is_not_one_for_everywhere() -> None:
    found = [
        acl("User:shop", "*", AclPermissionType.ALLOW),
        acl("User:batch", "192.0.2.7", AclPermissionType.ALLOW),
        acl("User:old", "192.0.2.8", AclPermissionType.DENY),
    ]
    shop, batch = (Binding("topic", "orders", "literal", name, "write", "allow") for name in ("User:shop", "User:batch"))
    assert from_kafka(found) == {shop, batch}
    assert from_kafka(found, everywhere=True) == {shop}

"""Kafka's ACL rules: DENY beats ALLOW, `User:*` is everybody, super users pass."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from mrc.ports import Binding

_IMPLIES_DESCRIBE = frozenset({"read", "write", "delete", "alter", "describe", "all"})


class Authorizer:
    """A cluster's bindings and who passes them.

    Attributes:
        bindings: as the cluster's metadata has them.
        super_users: principals that nothing refuses.
        everyone_if_none: Kafka's ``allow.everyone.if.no.acl.found``.
    """

    def __init__(self) -> None:
        self.bindings: set[Binding] = set()
        self.super_users: set[str] = {"User:admin", "User:mrc"}
        self.everyone_if_none = False

    def allows(self, principal: str, operation: str, resource: str, name: str, bindings: AbstractSet[Binding] | None = None) -> bool:
        """Whether ``principal`` may do ``operation`` (Kafka's `StandardAuthorizer`); ``bindings`` are a broker's own, where it is late."""
        if principal in self.super_users:
            return True
        known = self.bindings if bindings is None else bindings
        about = [binding for binding in known if binding.resource == resource and _names(binding, name)]
        mine = [binding for binding in about if binding.principal in (principal, "User:*")]
        if any(binding.permission == "deny" and binding.operation in (operation, "all") for binding in mine):
            return False
        granting = _IMPLIES_DESCRIBE if operation == "describe" else {operation, "all"}
        if any(binding.permission == "allow" and binding.operation in granting for binding in mine):
            return True
        return self.everyone_if_none and not about


def _names(binding: Binding, name: str) -> bool:
    if binding.pattern == "prefixed":
        return name.startswith(binding.name)
    return binding.name in (name, "*")

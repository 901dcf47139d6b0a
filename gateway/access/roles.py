"""Roles. Each has the rights of the ones before it."""

from enum import StrEnum


class Role(StrEnum):
    """
    What a caller may do.

    infer: ask models, give feedback, see what is there. operator: also load, register, roll out,
    evaluate, read metrics. admin: also delete, manage keys, read the audit log.
    """

    INFER = "infer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def includes(self, other: "Role") -> bool:
        """Whether this role has the rights of `other`."""
        return _RANK[self] >= _RANK[other]


_RANK = {role: rank for rank, role in enumerate(Role)}

"""Errors whose message is meant for the person who asked, shown without a traceback.

Does not: cover programming mistakes; those stay ValueError and TypeError.
"""

from __future__ import annotations


class UserError(Exception):
    """Something the user gave or the machine lacks. Carries a remedy.

    Args:
        reason: what was given or found, one sentence.
        remedy: what to do about it, one sentence.
    """

    exit_code = 2

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(f"{reason} {remedy}".strip())
        self.reason = reason
        self.remedy = remedy


class CannotReconstruct(UserError):
    """These photos cannot be made into a scene; says why and what would help."""

    exit_code = 3

"""What the server refuses, with the HTTP status that says the same.

Does not: cover photos that make no scene; those are ``recon.errors.CannotReconstruct``.
"""

from __future__ import annotations

from recon.errors import UserError


class Refused(UserError):
    """The server does not do this; ``status`` is the HTTP status that says the same."""

    def __init__(self, reason: str, remedy: str = "", status: int = 400) -> None:
        super().__init__(reason, remedy)
        self.status = status


class NotThere(Refused):
    """There is no such job, or it belongs to somebody else: both look alike."""

    def __init__(self) -> None:
        super().__init__("There is no such reconstruction.", "It may have been deleted; look at the gallery.", 404)

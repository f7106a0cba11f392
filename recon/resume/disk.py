"""Disks that fill up, turn read-only or vanish, said in words.

Input: an ``OSError``. Output: a ``UserError``, or None when the system's trouble is not a disk's. Does not: repair anything.
"""

from __future__ import annotations

import errno

from ..capture.names import shown
from ..errors import UserError

_WORDS = {
    "ENOSPC": ("the disk is full", "Free some space"),
    "EDQUOT": ("your share of the disk is used up", "Free some space"),
    "EFBIG": ("the file would become larger than is allowed", "Choose another disk"),
    "EROFS": ("the disk may only be read", "Choose another disk or folder"),
    "EIO": ("the disk does not answer", "Check the disk"),
    "ENODEV": ("the disk is gone", "Connect the disk again"),
    "ENXIO": ("the disk is gone", "Connect the disk again"),
    "ESTALE": ("the network disk is gone", "Connect the disk again"),
    "EHOSTDOWN": ("the network disk is gone", "Connect the disk again"),
    "ETIMEDOUT": ("the network disk does not answer", "Connect the disk again"),
    "ENOTCONN": ("the network disk is gone", "Connect the disk again"),
    "ENOENT": ("a file or folder that was there is gone", "Connect the disk or bring the folder back"),
    "EACCES": ("that is not permitted", "Check the permissions"),
    "EPERM": ("that is not permitted", "Check the permissions"),
}
WORDS = {getattr(errno, name): words for name, words in _WORDS.items() if hasattr(errno, name)}
"""Number of an error -> what happened, what to do."""


def disk_trouble(error: OSError) -> UserError | None:
    """Put an error of the system into words; None when it is about no file."""
    if error.errno not in WORDS or (error.filename is None and error.errno != errno.ENOSPC):
        return None
    happened, remedy = WORDS[error.errno]
    where = f"{shown(error.filename)}: " if isinstance(error.filename, str) else ""
    return UserError(f"{where}{happened}.", f"{remedy} and run the same command again: it goes on with the last finished stage.")

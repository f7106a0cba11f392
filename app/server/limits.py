"""How much visitors may take of this machine.

Input: nothing. Output: ``Limits``. Does not: measure; uploads, worker and viewers keep to them.
"""

from __future__ import annotations

from dataclasses import dataclass

MB, GB = 10**6, 10**9


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of the server. Sizes as 10^6 (MB) and 10^9 (GB) bytes."""

    max_file_mb: float = 2000.0
    """Largest uploaded file."""
    max_upload_gb: float = 4.0
    """Most that one visitor may have uploaded and not yet deleted with its reconstructions; also what one request may bring."""
    max_files: int = 600
    """Most files of one reconstruction."""
    max_total_gb: float = 50.0
    """Most that all reconstructions and uploads take together."""
    keep_free_gb: float = 1.0
    """Nothing is taken in when the disk has less than this left."""
    max_jobs: int = 200
    """Most reconstructions of one visitor that are kept."""
    max_waiting: int = 20
    """Most reconstructions of one visitor that wait or run."""
    max_age_days: float = 0.0
    """Finished reconstructions older than this are deleted; 0 keeps them."""
    upload_hours: float = 24.0
    """Uploads that became no reconstruction are deleted after this time."""
    cores: int = 0
    """Cores a reconstruction may use; 0: all."""
    max_memory: float | None = None
    """Most memory of a reconstruction in GB; None takes what it takes."""
    max_viewers: int = 6
    """Most viewers open at once; the one that rested longest is closed for a new one."""
    viewer_idle_s: float = 300.0
    """A viewer nobody looks at is closed after this time."""
    tries: int = 3
    """How often a reconstruction whose process was killed is begun in all; it goes on with its last finished stage."""

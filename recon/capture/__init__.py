"""What people bring: photos of every kind, folders, lists, archives, videos, masks; found, checked and decoded within limits."""

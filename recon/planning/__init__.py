"""How long a run will take and how much memory, said before it starts, and kept to."""

"""Going on after a kill: results of stages kept in a cache, and output folders that say which version wrote them."""

"""The page in the browser: drop photos, watch a reconstruction, look at it, take it home. It talks to ``Jobs`` alone."""

"""The page about a run folder."""

"""An event pipeline: every event counts exactly once."""

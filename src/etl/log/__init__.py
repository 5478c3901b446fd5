"""The partition log: the only place that knows the formats of its files."""

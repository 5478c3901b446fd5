"""PostgreSQL: deltas and offsets in one transaction, the mirror file, the embedded server."""

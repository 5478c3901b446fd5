"""The processor's work: what was read from the log is folded, and committed with its offsets."""

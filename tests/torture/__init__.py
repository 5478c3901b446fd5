"""The harness that tries to refute the promise: every line applied once, or a dead letter."""

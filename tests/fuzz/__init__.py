"""Fuzzing: lines and requests that are nearly right, judged beside an independent reader."""

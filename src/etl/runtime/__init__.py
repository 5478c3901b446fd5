"""The life of a process: settings, errors, files, locks, signals, logging."""

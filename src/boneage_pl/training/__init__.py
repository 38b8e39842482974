"""Configuration checks, run folders, checkpoints, resuming, callbacks and loggers."""

"""What happens around a training: checks, run folders, checkpoints, resuming, callbacks, logs."""

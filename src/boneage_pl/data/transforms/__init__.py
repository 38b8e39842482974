"""Batch transforms on the device, with random numbers by seed, epoch and sample."""

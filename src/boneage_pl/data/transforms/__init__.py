"""Transforms of a batch on the device; each image's random numbers depend on seed, epoch and sample alone."""

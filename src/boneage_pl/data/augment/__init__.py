"""Augmentations of a batch on the device, each image by its own numbers; see `boneage_pl.data.transforms`."""

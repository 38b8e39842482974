"""Skeletal age in months from hand radiographs: the RSNA 2017 experiment in PyTorch Lightning."""

__version__ = "0.1.0"

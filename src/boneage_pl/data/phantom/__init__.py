"""Synthetic hand radiographs whose age can be read from the bones, and from nothing else."""

from boneage_pl.data.phantom.dataset import phantom_table, write_phantom
from boneage_pl.data.phantom.radiograph import render

__all__ = ["phantom_table", "render", "write_phantom"]

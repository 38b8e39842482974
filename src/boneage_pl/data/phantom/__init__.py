"""Synthetic hand radiographs whose age shows only in the bones."""

from boneage_pl.data.phantom.dataset import generate_if_missing, phantom_table, write_phantom
from boneage_pl.data.phantom.render import render_radiograph

__all__ = ["generate_if_missing", "phantom_table", "render_radiograph", "write_phantom"]

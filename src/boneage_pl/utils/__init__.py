"""Utilities: files, processes, hardware, progress, optional dependencies, plots."""

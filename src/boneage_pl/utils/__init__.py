"""What has nothing to do with bones: files, processes, hardware, progress, optional dependencies, plots."""

"""Decode image files to 8-bit gray and resize them."""

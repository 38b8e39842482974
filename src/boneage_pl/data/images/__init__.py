"""One image: decode a file to 8-bit gray, and resize it."""

"""What the machine can do and what is done on it: cores, devices, files that are whole, locks, progress."""

"""Skeletal age in months from hand radiographs: the RSNA 2017 experiment in PyTorch Lightning."""

import getpass
import os

__version__ = "0.1.0"

try:
    getpass.getuser()
except (KeyError, OSError):  # a container's user who is not in /etc/passwd; PyTorch asks for a name
    os.environ["LOGNAME"] = f"user{os.getuid()}"

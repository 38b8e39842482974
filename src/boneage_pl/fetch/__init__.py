"""The challenge's archives: asked for, fetched, unpacked."""

"""A trained model in a browser: radiographs dropped, answers read; nothing leaves the machine."""

"""The error type for errors that a user can cause and fix."""


class BoneAgeError(Exception):
    """An error that a user can fix; the message has what, where and what to do.

    The command line prints it without a traceback and exits with 2.
    """


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its type's name if it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]

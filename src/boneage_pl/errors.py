"""The one error type for what a user can cause and mend."""


class BoneAgeError(Exception):
    """Something a user can put right: the message says what, where and what to do, in a few lines.

    The command line prints it without a traceback and exits with 2.
    """


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its type's name if it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]

"""The one error type for what a user can cause and mend."""


class BoneageError(Exception):
    """Something a user can put right: the message says what, where and what to do, in a few lines.

    The command line prints it without a traceback and exits with 2.
    """

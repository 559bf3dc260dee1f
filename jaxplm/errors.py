"""The one exception that means: the user can fix this."""


class UserError(Exception):
    """A mistake of the user's: a wrong field, a missing file, an incompatible checkpoint.

    The message is a single line that says what is wrong and what to do. `jaxplm.main` prints it to
    stderr without a traceback and exits with status 2.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))

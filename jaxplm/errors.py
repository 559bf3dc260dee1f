"""The exceptions that `jaxplm.main` answers with one line: the user can fix it, or the run was stopped."""


class UserError(Exception):
    """A mistake of the user's: a wrong field, a missing file, an incompatible checkpoint.

    The message is a single line that says what is wrong and what to do. `jaxplm.main` prints it to
    stderr without a traceback and exits with status 2.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class Interrupted(Exception):
    """The run was stopped and saved; `status` is the exit status (143 after SIGTERM, 130 after Ctrl-C)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status

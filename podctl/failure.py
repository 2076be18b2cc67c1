"""What ends a command: a message for stderr and an exit status. Imports nothing, so that every path may use it."""

from __future__ import annotations


class Failure(Exception):
    """The command cannot go on. `message` is printed as it is; `status` is what the shell sees."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


class UsageFailure(Failure):
    """The command line itself is wrong: printed with a pointer to the verb's help."""

    def __init__(self, message: str, verb: str = "") -> None:
        program = f"podctl {verb}".rstrip()
        super().__init__(f"error: {message}\nSee '{program} --help' for usage.")

"""The exit codes of all commands. The table in docs/reliability.md lists them for the rules of a scheduler.

A signal gives 128 + its number, a finished command 0, and an error that the program does not expect 1.
"""

import errno

COMMAND = 2  # a mistake in the command, a file or the data; the same command fails again
NOT_FINITE = 3  # a loss or gradient that is not finite
DISK_FULL = 4
LOST = 5  # another process of the run is gone, or has the folder; the same command with resume=auto continues

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of the system that more space resolves."""


class ProcessLost(ConnectionError):
    """Another process of this run is gone."""


def exit_code(error: BaseException | None) -> int:
    """The code for an error that a user can cause: that of the first known cause in its chain."""
    while error is not None:
        if isinstance(error, ProcessLost):
            return LOST
        if isinstance(error, FloatingPointError):
            return NOT_FINITE
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            return DISK_FULL
        error = error.__cause__
    return COMMAND

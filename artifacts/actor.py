"""Who this process is, as records name it."""

import getpass
import os
import socket


def whoami() -> str:
    """`user@host` of this process; numbers stand in for a user without a name."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user id without an entry
        user = str(os.getuid())
    name = f"{user}@{socket.gethostname()}"  # the environment says who the user is, and may say anything
    return "".join(letter if letter.isprintable() else "?" for letter in name)[:200]

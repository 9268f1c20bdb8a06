"""The user and host that records name as their author."""

import getpass
import os
import socket


def whoami() -> str:
    """`user@host` of this process; the user id where the user has no name."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user id without an entry
        user = str(os.getuid())
    name = f"{user}@{socket.gethostname()}"  # the user comes from the environment: any text
    return "".join(letter if letter.isprintable() else "?" for letter in name)[:200]

"""Refuses files that are too large for the repository: `python -m tests.large_files FILE...`."""

import sys
from pathlib import Path

MAX_BYTES = 500_000


def main() -> int:
    """Prints each file that is too large; 1 if there is one."""
    large = {name: size for name in sys.argv[1:] if (size := Path(name).stat().st_size) > MAX_BYTES}
    for name, size in large.items():
        print(f"{name} has {size:,} bytes; at most {MAX_BYTES:,} may be committed")
    return 1 if large else 0


if __name__ == "__main__":
    sys.exit(main())

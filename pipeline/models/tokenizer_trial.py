"""Reads a tokenizer.json in a process of its own, within limits that the kernel keeps.

A program, started by `tokenizer.py` for files whose cost nothing tells but a trial. It needs the tokenizers
library alone, and ends by a signal where a limit was met.
"""

import resource
import sys
from pathlib import Path

CPU_SECONDS, MEMORY_BYTES = 5, 1 << 30
"""What reading a tokenizer, and encoding a letter with it, may take; memory is counted as address space."""


def main() -> None:
    """Tries the file that the command line names."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    # No core file: it would be as large as the memory limit.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_buffer(Path(sys.argv[1]).read_bytes())
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode("a")


if __name__ == "__main__":
    main()

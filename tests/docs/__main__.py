"""Refreshes everything that is generated in the documents: `python -m tests.docs`, or `make docs`.

Reference pages and pictures are written from the code, console sessions are run and written as they print.
The figures of the code's structure are counted again. Arguments go to pytest, and the figures stay:
`-k "not built"` leaves out the sessions that need a built engine.
"""

import os
import sys
from pathlib import Path

import pytest

from tests.docs import pictures, reference, structure
from tests.docs.test_sessions import REFRESH

if __name__ == "__main__":
    for name in [*reference.write(), *pictures.write()]:
        print(f"wrote {name}")
    if not sys.argv[1:]:
        structure.write()
    os.environ[REFRESH] = "1"
    sys.exit(pytest.main(["-q", str(Path(__file__).with_name("test_sessions.py")), *sys.argv[1:]]))

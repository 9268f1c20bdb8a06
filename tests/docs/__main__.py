"""Refreshes everything that is generated in the documents: `python -m tests.docs`, or `make docs`.

Reference pages and pictures are written from the code, console sessions are run and written as they print.
Arguments go to pytest: `-k "not built"` leaves out what needs a built engine.
"""

import os
import sys
from pathlib import Path

import pytest

from tests.docs import pictures, reference
from tests.docs.test_sessions import REFRESH

if __name__ == "__main__":
    for name in [*reference.write(), *pictures.write()]:
        print(f"wrote {name}")
    os.environ[REFRESH] = "1"
    sys.exit(pytest.main(["-q", str(Path(__file__).with_name("test_sessions.py")), *sys.argv[1:]]))

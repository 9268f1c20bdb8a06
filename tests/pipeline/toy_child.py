"""A child that makes toys: `pipeline.child.door` with a table of kinds of its own."""

import sys
from pathlib import Path

from pipeline.child.door import main
from pipeline.child.kinds import Maker
from tests.pipeline.toy import ToyJob


def toy(kind: str) -> Maker:
    """`KIND.toy` of tests.pipeline.toy_steps; `KIND.<name>` is that function of tests.pipeline.toy."""
    variant = kind.partition(".")[2]
    function = "tests.pipeline.toy_steps:build" if variant == "toy" else f"tests.pipeline.toy:{variant}"
    return Maker(function, ToyJob)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), toy))

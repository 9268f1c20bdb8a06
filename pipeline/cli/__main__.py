"""`python -m pipeline.cli`: the command line, where no `enginery` is on PATH."""

from pipeline.cli.main import main

if __name__ == "__main__":
    main()

"""The command line: parsing, output, progress, and one module per main verb in `commands`."""

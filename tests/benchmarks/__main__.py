"""All benchmarks, one after another: `make bench`."""

from tests.benchmarks import (
    calibration,
    catalog,
    commands,
    conversion,
    conversion_table,
    decode,
    pages,
    store,
    transfer,
)


def main() -> None:
    """Runs each benchmark; each prints its own table."""
    for name, run in (
        ("Command line", commands.main),
        ("Finding among 10,000 versions", catalog.main),
        ("Pages of the registry with 10,000 versions", pages.main),
        ("Conversion", conversion.main),
        ("Conversion, by family", conversion_table.main),
        ("Store", store.main),
        ("Decode", decode.main),
        ("Calibration", calibration.main),
        ("Transfer", transfer.main),
    ):
        print(f"\n## {name}\n", flush=True)
        run()


if __name__ == "__main__":
    main()

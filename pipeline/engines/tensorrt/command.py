"""The command line of `trtllm-build`: every option explicitly, in the version's own spelling; pure.

Written from the option tables; never run against the real command.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.engines.tensorrt.capabilities import Option
from pipeline.engines.tensorrt.engine_settings import EngineSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRun:
    """Where and how one build runs; in no key."""

    checkpoint: Path
    out: Path
    timing_cache: Path
    """Written by rank 0, and read by the ranks that are built after it."""
    input_cache: Path
    """Read by every rank. Ranks built one after another share `timing_cache`; those built at once read a
    copy, because one might read the file while another writes it."""
    workers: int
    """Ranks built at once."""

    def arguments(self) -> dict[str, Any]:
        """Option -> value, under the names of every version; 0.8 has one option for both caches."""
        return {
            "checkpoint_dir": str(self.checkpoint),
            "output_dir": str(self.out),
            "workers": self.workers,
            "timing_cache": str(self.timing_cache),
            "input_timing_cache": str(self.input_cache),
            "output_timing_cache": str(self.timing_cache),
        }


def command(settings: EngineSettings, run: BuildRun) -> list[str]:
    """The arguments after the program's name, in the order of the version's table.

    Missing and unknown settings are a KeyError.
    """
    options = settings.table.options
    values = {
        **settings.values,
        **{name: value for name, value in run.arguments().items() if name in options},
    }
    expected = {option.name for option in options.values() if not option.deprecated}
    # An option left out would take the command's own default, which the key does not have.
    if values.keys() != expected:
        raise KeyError(
            f"settings of {settings.table.snapshot}: missing {sorted(expected - values.keys())}, "
            f"unknown {sorted(values.keys() - expected)}"
        )
    # The table keeps the order of the command's own help, so a changed setting changes its own words only.
    ordered = [option for option in options.values() if option.name in values]
    return [word for option in ordered for word in _words(option, values[option.name])]


def _words(option: Option, value: Any) -> Iterator[str]:
    """One option as arguments; a flag that is off and what is unset are left out, there is no other way."""
    if value is None or value is False or value == []:
        return
    yield f"--{option.name}"
    if value is True:
        return
    yield from (str(word) for word in (value if isinstance(value, list) else [value]))

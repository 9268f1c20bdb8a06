"""The settings of one engine while rules change them: a value per option, and a note per change."""

from dataclasses import dataclass, field
from typing import Any

from pipeline.backend.build_request import BuildRequest
from pipeline.engines.tensorrt.capabilities import Capabilities, Option
from pipeline.engines.tensorrt.engine_settings import EngineSettings
from pipeline.engines.tensorrt.tensorrt_options import Options, default_of

AT_BUILD = (
    "checkpoint_dir", "output_dir", "workers", "timing_cache", "input_timing_cache", "output_timing_cache",
)  # fmt: skip
"""Options that say where and how a build runs; they are given when it runs and enter no key."""


@dataclass(slots=True)
class Sheet:
    """Every option of the version's table that the engine depends on."""

    request: BuildRequest
    table: Capabilities
    given: frozenset[str]
    """Options that the recipe gives."""
    values: dict[str, Any]
    notes: list[str] = field(default_factory=list)

    def __contains__(self, name: str) -> bool:
        """Whether this version has the option."""
        return name in self.values

    def on(self, name: str) -> bool:
        """Whether a flag or switch is there and on, or a plugin has a type."""
        return self.values.get(name) not in (None, False, "disable")

    def put(self, name: str, value: Any) -> None:
        """Sets an option that follows from the recipe without surprise; no effect where there is none."""
        if name in self.values:
            self.values[name] = value

    def change(self, name: str, value: Any, why: str) -> None:
        """Sets an option to another value than asked for, and notes why; no effect where nothing changes."""
        if name not in self.values or self.values[name] == value:
            return
        before, self.values[name] = self.values[name], value
        # An option that was `auto` replaces nothing that anybody asked for.
        text = f"{_word(value)}" if before == "auto" else f"{_word(value)} instead of {_word(before)}"
        self.notes.append(f"engine.options.{name}: {text}, because {why}")

    def switch(self, name: str, *, on: bool, why: str) -> None:
        """Changes a switch or flag, in the version's own spelling."""
        if name in self.values:
            flag = self.table.options[name].type == "flag"
            self.change(name, on if flag else ("enable" if on else "disable"), why)

    def resolved(self, draft: EngineSettings | None = None) -> EngineSettings:
        """The settings that the sheet came to."""
        return EngineSettings(
            table=self.table, values=dict(self.values), draft=draft, notes=tuple(self.notes)
        )


def open_sheet(request: BuildRequest, options: Options) -> Sheet:
    """The settings as the recipe gives them, defaults for the others."""
    table, plain = options.table, options.model_dump(mode="json")
    values = {
        option.name: plain.get(option.name, _plain(option))
        for option in table.options.values()
        if option.name not in AT_BUILD and not option.deprecated
    }
    # Rules do not touch some options that the recipe itself gives.
    return Sheet(request=request, table=table, given=frozenset(options.model_fields_set), values=values)


def _plain(option: Option) -> Any:
    """The default, as JSON."""
    value = default_of(option)
    return list(value) if isinstance(value, tuple) else value


def _word(value: Any) -> str:
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)

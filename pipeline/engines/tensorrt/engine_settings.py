"""The resolved settings of one engine: every option that it depends on, with its effective value; pure.

`engine.options` takes three shapes: the validated options of a recipe (`tensorrt_options`), these settings,
which the key hashes and `engine.json` repeats, and the command line (`command`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.engines.tensorrt.capabilities import Capabilities, snapshot

TABLE, DRAFT = "table", "draft"
"""Names in the key that are no options: the option table's, and the settings of the draft model's engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """What an engine is built with."""

    table: Capabilities
    """The option table of the toolchain's version."""
    values: Mapping[str, Any]
    """Option -> value, as JSON, without the options of `BuildRun`."""
    draft: "EngineSettings | None" = None
    """Settings of the draft model's engine."""
    notes: tuple[str, ...] = field(default=(), compare=False)
    """One per value that differs from what was asked or left to us, and why; not part of the key."""

    @classmethod
    def parse(cls, param: Mapping[str, Any]) -> "EngineSettings":
        """Reads what `as_param` wrote; FileNotFoundError for a table that does not exist."""
        draft = param.get(DRAFT)
        # The key names the snapshot here and the very release among the toolchain's versions.
        return cls(
            table=snapshot(param[TABLE]),
            values={name: value for name, value in param.items() if name not in (TABLE, DRAFT)},
            draft=cls.parse(draft) if draft is not None else None,
        )

    def as_param(self) -> dict[str, Any]:
        """As the key hashes them."""
        draft = {DRAFT: self.draft.as_param()} if self.draft is not None else {}
        return {TABLE: self.table.snapshot, **self.values, **draft}

    def get(self, name: str, default: Any = None) -> Any:
        """Value of an option; the default where this version has no such option."""
        return self.values.get(name, default)

    @property
    def max_draft_len(self) -> int:
        """Tokens proposed per step; 0 without speculative decoding."""
        return int(self.get("max_draft_len") or 0)

    def scored_twin(self) -> "EngineSettings":
        """Settings of the engine that is scored where the published one cannot return context logits.

        The command refuses context logits beside draft tokens. The twin has the same checkpoint and settings
        without the draft; for an engine that is not speculative it is the engine itself.
        """
        if not self.max_draft_len:
            return replace(self, draft=None)
        changed = {"speculative_decoding_mode": None, "max_draft_len": 0, "gather_context_logits": True}
        return replace(self, values={**self.values, **changed}, draft=None)

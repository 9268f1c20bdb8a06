"""The schema of recipes: closed, frozen, with a description of every field."""

import difflib
import json
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    PositiveFloat,
    PositiveInt,
    StringConstraints,
    Tag,
    field_validator,
    model_validator,
)

from recipes.calibration import DATE, Calibration
from recipes.cron import check_cron, check_timezone
from recipes.data import Data
from recipes.formats import FORMATS, LATER
from recipes.frozen import ALIAS, NAME, Commit, FilePath, Fraction, Frozen, Several, Version1
from recipes.precision import Precision
from recipes.regular import shortened

Name = Annotated[
    str,
    StringConstraints(pattern=NAME, max_length=200),
]
Alias = Annotated[str, StringConstraints(pattern=ALIAS, max_length=64)]


def check_format(name: str) -> str:
    """The format's name; ValueError, with the known formats, for another one."""
    if name in LATER:
        raise ValueError(
            f"{name!r} is not built by this version: {LATER[name]} (allowed: {', '.join(FORMATS)})"
        )
    if name not in FORMATS:
        close = difflib.get_close_matches(name, FORMATS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"unknown format {name!r}{hint} (allowed: {', '.join(FORMATS)})")
    return name


FormatName = Annotated[str, AfterValidator(check_format)]


class Model(Frozen):
    """The source checkpoint: a hub repository at a commit, or a local directory."""

    repo: str | None = None
    """Hugging Face repository id, e.g. `meta-llama/Llama-3.1-8B-Instruct`."""
    revision: Commit | None = None
    """Full 40-character commit hash of `repo`. Branches and tags are refused: they move."""
    path: FilePath | None = None
    """Local checkpoint directory, relative to the recipe file."""

    @model_validator(mode="after")
    def one_place(self) -> "Model":
        """Checks that exactly one of `repo` and `path` is given, and the commit with `repo`."""
        if (self.repo is None) == (self.path is None):
            raise ValueError("give exactly one of 'repo' (with 'revision') and 'path'")
        if (self.repo is None) != (self.revision is None):
            raise ValueError(
                "'repo' and 'revision' go together; revision is the full 40-character commit hash"
            )
        return self


class MixedFormat(Frozen):
    """A format, and others for some of the linears."""

    default: FormatName
    """Format of every linear that no exception names."""
    exceptions: dict[str, FormatName] = Field(alias="except", min_length=1)
    """Shell pattern of module names, e.g. `model.layers.0.*`, -> format; the first match counts."""


def _spelling(value: Any) -> str | None:
    """The tag of the union member for a value; None for neither."""
    if isinstance(value, str):
        return "str"
    # A model too: the value may have been parsed already.
    return "MixedFormat" if isinstance(value, dict | MixedFormat) else None


AnyFormat = Annotated[
    Annotated[FormatName, Tag("str")] | Annotated[MixedFormat, Tag("MixedFormat")],
    Discriminator(
        _spelling,
        custom_error_type="format_spelling",
        custom_error_message="must be a format's name, or {default: NAME, except: {PATTERN: NAME}}",
    ),
]


class Engine(Frozen):
    """What is built, and for what."""

    backend: Literal["aoti", "tensorrt", "trtllm_torch"] = "aoti"
    """Tool that builds the engine."""
    target: str = "host"
    """GPU type the engine is for (`h100`, `h200`, ...); `host` means the machine that builds."""
    tp: PositiveInt = 1
    """Tensor-parallel degree: ranks that split every layer."""
    pp: PositiveInt = 1
    """Pipeline-parallel degree: ranks that split the stack of layers."""
    ep: PositiveInt = 1
    """Expert-parallel degree: of the `tp` ranks, how many hold different experts; 1 splits every expert."""
    toolchain: str | None = None
    """Toolchain that builds and serves, by its name in `enginery tools toolchains`; else the only one."""
    max_batch_size: PositiveInt = 8
    """Requests served at once."""
    max_seq_len: PositiveInt = 512
    """Prompt plus output tokens per request."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The backend's own options, checked by the backend's own model when the plan is made."""

    @property
    def world_size(self) -> int:
        """Ranks in all."""
        return self.tp * self.pp


class Traffic(Frozen):
    """What the engine will serve; sizes that the recipe leaves open follow from it."""

    input_tokens: PositiveInt
    """Tokens of a typical prompt."""
    output_tokens: PositiveInt
    """Tokens of a typical answer."""
    max_input_tokens: PositiveInt | None = None
    """Tokens of the longest prompt; default: what `engine.max_seq_len` leaves beside the answer."""
    concurrency: PositiveInt | None = None
    """Requests that are usually under way at once; default: `engine.max_batch_size`."""
    shared_prefix_tokens: int = Field(default=0, ge=0)
    """Tokens that most prompts begin with alike, e.g. a system prompt."""
    goal: Literal["throughput", "latency"] = "throughput"
    """What matters where both cannot be had."""


class Speculative(Frozen):
    """Speculative decoding: several tokens per step are proposed, and checked by the engine."""

    mode: Literal["draft_tokens_external", "lookahead_decoding", "medusa", "eagle"]
    """Where proposals come from: a smaller model, the engine itself, or heads beside the model."""
    max_draft_len: PositiveInt
    """Tokens proposed per step, at most."""
    draft: Model | None = None
    """Checkpoint of the smaller model (`draft_tokens_external`), or of the heads (`medusa`, `eagle`)."""
    draft_format: FormatName = "none"
    """Quantization format of the smaller model."""


class Slo(Frozen):
    """Service level a point must reach to be chosen."""

    ttft_ms_p95: PositiveFloat | None = None
    """Time to first token, 95th percentile, milliseconds."""
    itl_ms_p95: PositiveFloat | None = None
    """Inter-token latency, 95th percentile, milliseconds."""
    tokens_per_s_per_user: PositiveFloat | None = None
    """Output tokens per second that each request sees."""


class Budget(Frozen):
    """How much searching is allowed."""

    trials: int = Field(default=8, ge=1, le=256)
    """Points to build and measure, at most."""


SETTINGS = ("max_batch_size", "max_seq_len")
OPTION = "options."


def check_setting(name: str) -> str:
    """The name of a setting that a search can vary; ValueError, with the allowed ones, for another one."""
    if name not in SETTINGS and not (name.startswith(OPTION) and name != OPTION):
        close = difflib.get_close_matches(name, SETTINGS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"is not a setting that can vary{hint} (allowed: {', '.join(SETTINGS)}, "
            f"{OPTION}<name of a backend option>)"
        )
    return name


class Tune(Frozen):
    """Searches engine settings by building and measuring, and keeps the best point under the SLO."""

    space: dict[
        Annotated[str, AfterValidator(check_setting)], Annotated[Several[Any], Field(min_length=1)]
    ] = Field(min_length=1)
    """Setting -> values to try: `max_batch_size`, `max_seq_len`, or `options.<name>` of the backend."""
    objective: Literal["throughput", "latency"] = "throughput"
    """`throughput`: most output tokens/s in all; `latency`: lowest median inter-token latency."""
    slo: Slo = Slo()
    """Points that miss it are infeasible."""
    budget: Budget = Budget()
    """Limit on the search."""

    @field_validator("space")
    @classmethod
    def values_can_be_tried(cls, space: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
        """Checks that sizes are integers from 1, and that no value is repeated."""
        for name, values in space.items():
            # `type`, since True is an int too.
            wrong = [value for value in values if name in SETTINGS and (type(value) is not int or value < 1)]
            if wrong:
                raise ValueError(f"{name}: {shortened(repr(wrong[0]))} is not an integer from 1")
            seen: set[str] = set()
            # As JSON: options may be lists and mappings, which no set can hold, and 1 is not True.
            for text in (json.dumps(value, sort_keys=True) for value in values):
                if text in seen:
                    raise ValueError(f"{name}: {shortened(text)} is repeated; keep one")
                seen.add(text)
        return space


class Limits(Frozen):
    """How far the engine may be from the source checkpoint."""

    kl: PositiveFloat | None = None
    """Mean token KL divergence from the source checkpoint, in nats, at most."""
    top1_agreement: Fraction | None = None
    """Share of tokens whose most likely next token is unchanged, at least."""
    perplexity_ratio: PositiveFloat | None = None
    """Engine perplexity over source perplexity, at most."""

    @model_validator(mode="after")
    def at_least_one(self) -> "Limits":
        """Checks that the gate limits something."""
        if self.kl is None and self.top1_agreement is None and self.perplexity_ratio is None:
            raise ValueError(
                "give at least one of 'kl', 'top1_agreement', 'perplexity_ratio'; "
                "a gate without limits passes everything"
            )
        return self


class Gate(Frozen):
    """The proof of accuracy that publication needs."""

    data: Data
    """Held-out text."""
    seq_len: PositiveInt = 256
    """Tokens per scored sequence."""
    max_sequences: PositiveInt | Literal["all"] = 64
    """Sequences to score."""
    limits: Limits
    """What passes."""

    @model_validator(mode="after")
    def not_a_blend(self) -> "Gate":
        """Checks that the gate's source has no weight, which belongs to blends."""
        # The default: whether the recipe wrote it out makes no difference.
        if self.data.weight != 1.0:
            raise ValueError("data.weight is for calibration; a gate has one source: give 'samples'")
        return self


class Publish(Frozen):
    """Where the version goes once the gate passed."""

    alias: Alias = "candidate"
    """Alias moved to the new version."""


class Schedule(Frozen):
    """When a submitted recipe runs by itself."""

    cron: Annotated[str, AfterValidator(check_cron)]
    """Cron expression, e.g. `0 3 * * *`."""
    timezone: Annotated[str, AfterValidator(check_timezone)] = "UTC"
    """IANA time zone of the expression."""


class Recipe(Frozen):
    """One engine, described completely."""

    version: Version1
    """Version of this schema."""
    name: Name
    """Name the engine is registered under."""
    model: Model
    """Source checkpoint."""
    format: AnyFormat
    """Quantization format of every linear, or a default with exceptions."""
    kv_cache: Literal["auto", "fp8", "int8"] = "auto"
    """Type of the KV cache: the engine's own dtype, or eight bits with calibrated scales."""
    calibration: Calibration | None = None
    """Needed by formats with calibrated scales."""
    engine: Engine = Engine()
    """What is built."""
    traffic: Traffic | None = None
    """What the engine will serve."""
    speculative: Speculative | None = None
    """Speculative decoding; without it, one token per step."""
    tune: Tune | None = None
    """Search for the best engine settings; without it, the settings above are built."""
    gate: Gate
    """Proof of accuracy."""
    publish: Publish = Publish()
    """Publication."""
    schedule: Schedule | None = None
    """Used by `enginery submit`."""

    @property
    def precision(self) -> Precision:
        """The format of each linear."""
        if isinstance(self.format, str):
            return Precision.parse(self.format)
        # By alias: the field is called `exceptions`, since `except` is a keyword of Python.
        return Precision.parse(self.format.model_dump(by_alias=True))

    @property
    def date(self) -> str:
        """Date for chat templates that print today's date, ISO 8601."""
        return self.calibration.date if self.calibration is not None else DATE

    @property
    def needs_calibration(self) -> bool:
        """Whether the recipe needs calibrated scales."""
        return self.precision.needs != "none" or self.kv_cache != "auto"

    @model_validator(mode="after")
    def calibrated_formats_are_fed(self) -> "Recipe":
        """Checks that calibrated scales have calibration data and the statistics that they need."""
        if self.needs_calibration and self.calibration is None:
            cause = f"format {str(self.precision)!r}" if self.precision.needs != "none" else "kv_cache"
            raise ValueError(
                f"calibration is required: {cause} has calibrated scales; "
                "add 'calibration: {data: [{path: ...}]}'"
            )
        if self.calibration is not None and self.calibration.statistics == "ranges":
            # Ranges are cheaper to record, and lack the second moments that the search needs.
            searched = [fmt.name for fmt in self.precision.formats if fmt.needs == "search"]
            if searched:
                raise ValueError(
                    f"calibration.statistics: 'ranges' is not enough for {', '.join(searched)}; use 'all'"
                )
        return self

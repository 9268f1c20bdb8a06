"""Compares a built engine's config.json with the settings that it was built with; pure.

The layout of `config.json` was read in `builder.py` of TensorRT-LLM 0.12 and 1.0 to 1.2; no engine's was at
hand.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.checkpoint.rank_layout import KV_ALGORITHMS
from pipeline.engines.tensorrt.capabilities import Option
from pipeline.engines.tensorrt.engine_settings import EngineSettings
from pipeline.engines.tensorrt.support import algorithm
from recipes.precision import Precision

ABSENT = "not said"
"""What is reported where config.json lacks a field."""

LIMITS = {
    "max_batch_size", "max_input_len", "max_output_len", "max_seq_len", "max_beam_width", "max_num_tokens",
    "max_prompt_embedding_table_size", "max_draft_len", "max_lora_rank",
}  # fmt: skip
"""Numbers of which an engine may not have less than was asked."""

NEEDED = {
    "gather_context_logits", "gather_generation_logits", "kv_cache_type", "paged_kv_cache", "lora_plugin",
    "lora_target_modules", "speculative_decoding_mode", "use_paged_context_fmha", "remove_input_padding",
    "weight_streaming", "tokens_per_block", "logits_dtype", "strip_plan",
}  # fmt: skip
"""Settings that an engine is served by: any other value means less than was asked."""

NOT_WRITTEN = {
    "model_config", "build_config", "model_cls_file", "model_cls_name", "log_level", "dry_run",
    "visualize_network", "gather_all_token_logits", "weight_only_precision", "lora_dir", "cluster_key",
    "monitor_memory", "tp_size", "pp_size", "gpus_per_node",
}  # fmt: skip
"""Options that are no part of an engine's config.json, or are compared by the mapping."""

PLACES = {
    "strip_plan": ("build_config", "use_strip_plan"),
    "fast_build": ("build_config", "plugin_config", "manage_weights"),
    "builder_force_num_profiles": ("build_config", "force_num_profiles"),
    "logits_dtype": ("pretrained_config", "logits_dtype"),
    "auto_parallel": ("build_config", "auto_parallel_config", "world_size"),
    "lora_ckpt_source": ("build_config", "lora_config", "lora_ckpt_source"),
    "lora_target_modules": ("build_config", "lora_config", "lora_target_modules"),
    "max_lora_rank": ("build_config", "lora_config", "max_lora_rank"),
}
"""Options that have another name or place there."""

MODES = {
    "draft_tokens_external": 2,
    "medusa": 4,
    "lookahead_decoding": 8,
    "explicit_draft_tokens": 16,
    "eagle": 32,
}
"""Speculative decoding modes as the numbers that config.json has (`SpeculativeDecodingMode`); 1: none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One setting that an engine has otherwise than asked."""

    name: str
    asked: Any
    built: Any
    reduces: bool
    """The engine serves less than was asked."""

    def __str__(self) -> str:
        """For people and reports."""
        return f"{self.name}: asked {self.asked}, built {self.built}"


def differences(
    params: Mapping[str, Any], settings: EngineSettings, config_json: Mapping[str, Any]
) -> list[Difference]:
    """Every difference between the parameters of an engine step and the engine's config.json.

    `asked` has `format`, `kv_cache`, `tp`, `pp` and `ep`. What the builder adds to `max_seq_len` for draft
    tokens is no difference.
    """
    differing = list(_mapping(params, config_json)) + list(_quantization(params, config_json))
    for option in settings.table.options.values():
        if option.name in settings.values and not _is_left_out(option, settings):
            differing += _compared(option, settings, config_json)
    return differing


def _is_left_out(option: Option, settings: EngineSettings) -> bool:
    """Whether config.json lacks the option; options of LoRA are written where the plugin is on."""
    lora = option.name.startswith(("lora_", "max_lora")) and option.name != "lora_plugin"
    return option.name in NOT_WRITTEN or (lora and settings.get("lora_plugin", "disable") == "disable")


def _compared(
    option: Option, settings: EngineSettings, config_json: Mapping[str, Any]
) -> Iterator[Difference]:
    name, setting = option.name, settings.values[option.name]
    built = _built(option, config_json)
    # Left to the builder: whatever it chose is as asked.
    if setting is None and name in ("builder_opt", "builder_force_num_profiles", "opt_num_tokens"):
        return
    expected = _expected(name, setting, settings, config_json)
    if built in expected:
        return
    # More room than asked for still serves all that was asked.
    less = name in LIMITS and isinstance(built, int) and built < expected[0]
    # A field that a version does not write proves nothing.
    yield Difference(
        name=name, asked=setting, built=built, reduces=less or (name in NEEDED and built != ABSENT)
    )


def _expected(
    name: str, setting: Any, settings: EngineSettings, config_json: Mapping[str, Any]
) -> tuple[Any, ...]:
    """The values that config.json may have for one setting."""
    pretrained = config_json["pretrained_config"]
    # By version a switch is a word, a boolean or a null there, and `auto` has become a type.
    words = {
        "enable": (True, "enable"),
        "disable": (False, None, "disable"),
        "auto": ("auto", pretrained.get("dtype")),
    }
    if isinstance(setting, str) and setting in words:
        return words[setting]
    if name == "kv_cache_type":
        return (setting.upper(), setting)
    if name == "speculative_decoding_mode":
        # Some versions write the mode's number, others its name.
        return (MODES.get(setting, 1), (setting or "none").upper())
    if name == "max_seq_len" and settings.get("speculative_decoding_mode"):
        # The builder makes room for draft tokens, and with EAGLE for its layers.
        return (setting + settings.max_draft_len + pretrained.get("num_eagle_layers", 0),)
    return (setting,)


def _built(option: Option, config_json: Mapping[str, Any]) -> Any:
    """The value in config.json; plugins are in `plugin_config`, and some versions keep one outside of it."""
    if option.name in PLACES:
        return _at(config_json, PLACES[option.name])
    place: tuple[str, ...] = ("build_config", option.name)
    if option.kind == "plugin":
        value = _at(config_json, ("build_config", "plugin_config", option.name))
        if value != ABSENT:
            return value
    return _at(config_json, place)


def _at(value: Any, place: tuple[str, ...]) -> Any:
    for name in place:
        if not isinstance(value, Mapping) or name not in value:
            return ABSENT
        value = value[name]
    return value


def _mapping(params: Mapping[str, Any], config_json: Mapping[str, Any]) -> Iterator[Difference]:
    """Ranks; old versions do not write the experts' ranks, which is no difference."""
    names = {"tp": "tp_size", "pp": "pp_size", "ep": "moe_ep_size"}
    for name, field_name in names.items():
        built = _at(config_json, ("pretrained_config", "mapping", field_name))
        # Another number of ranks is another engine: any difference counts.
        if built != params[name] and not (name == "ep" and built in (ABSENT, -1)):
            yield Difference(name=name, asked=params[name], built=built, reduces=True)


def _quantization(params: Mapping[str, Any], config_json: Mapping[str, Any]) -> Iterator[Difference]:
    expected = {
        "quant_algo": algorithm(Precision.parse(params["format"])),
        "kv_cache_quant_algo": KV_ALGORITHMS[params["kv_cache"]],
    }
    for name, value in expected.items():
        built = _at(config_json, ("pretrained_config", "quantization", name))
        if built != value:
            yield Difference(name=name, asked=value, built=built, reduces=True)

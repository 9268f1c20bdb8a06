"""An engine's config.json is compared with what was asked, setting by setting."""

import copy
from typing import Any

import pytest

from pipeline.engines.tensorrt.capabilities import SNAPSHOTS, snapshot
from pipeline.engines.tensorrt.engine_settings import EngineSettings
from pipeline.engines.tensorrt.read_back import ABSENT, Difference, differences
from recipes.schema import Traffic
from tests.pipeline.engines.tensorrt.asked import EAGLE, LOOKAHEAD, TRAFFIC, built

WORDS = {"enable": True, "disable": None}
DROPPED = {
    "model_config",
    "build_config",
    "model_cls_file",
    "model_cls_name",
    "log_level",
    "dry_run",
    "visualize_network",
}


def asked(version: str = "0.16.0", options: dict[str, Any] | None = None, **changes) -> dict[str, Any]:
    """Parameters of an engine step, as far as they are compared."""
    engine = changes.get("engine", {})
    return {
        "format": changes.get("format", "none"),
        "kv_cache": changes.get("kv_cache", "auto"),
        "tp": engine.get("tp", 1),
        "pp": engine.get("pp", 1),
        "ep": engine.get("ep", 1),
        "options": built(version, options, **changes),
    }


def compare(params, config):
    """The differences of an engine from the parameters that it was built with."""
    return differences(params, EngineSettings.parse(params["options"]), config)


def config_json(params, algorithm=None):
    """What TensorRT-LLM would write for them, in the layout of its BuildConfig."""
    settings = params["options"]
    options = snapshot(settings["table"]).options
    plain = {
        name: value
        for name, value in settings.items()
        if name in options and options[name].kind == "cli" and name not in DROPPED
    }
    plugins = {name: settings[name] for name, option in options.items() if option.kind == "plugin"}
    draft = plain.pop("max_draft_len", 0)
    modes = {None: 1, "draft_tokens_external": 2, "medusa": 4, "lookahead_decoding": 8, "eagle": 32}
    config = {
        **plain,
        "max_draft_len": draft,
        "max_seq_len": plain["max_seq_len"] + draft if plain.get("max_seq_len") else None,
        "kv_cache_type": (plain.get("kv_cache_type") or "").upper(),
        "speculative_decoding_mode": modes[plain.get("speculative_decoding_mode")],
        "use_strip_plan": plain.get("strip_plan"),
        "force_num_profiles": plain.get("builder_force_num_profiles"),
        "lora_config": {"lora_dir": [], "lora_ckpt_source": "hf", "max_lora_rank": plain.get("max_lora_rank"),
                        "lora_target_modules": plain.get("lora_target_modules")},
        "auto_parallel_config": {"world_size": 1},
        "plugin_config": {name: WORDS.get(value, value) for name, value in plugins.items()}
        | {"manage_weights": plain.get("fast_build")},
    }  # fmt: skip
    cache = {"auto": None, "fp8": "FP8", "int8": "INT8"}[params["kv_cache"]]
    return {
        "version": "0",
        "pretrained_config": {
            "dtype": "bfloat16",
            "logits_dtype": settings["logits_dtype"],
            "mapping": {"tp_size": params["tp"], "pp_size": params["pp"], "moe_ep_size": params["ep"]},
            "quantization": {"quant_algo": algorithm, "kv_cache_quant_algo": cache},
        },
        "build_config": config,
    }


@pytest.mark.parametrize("version", SNAPSHOTS)
@pytest.mark.parametrize("traffic", [None, TRAFFIC])
def test_an_engine_as_asked_differs_in_nothing(version: str, traffic: Traffic | None):
    params = asked(version, traffic=traffic, engine={"tp": 2, "pp": 2})
    assert compare(params, config_json(params)) == []


def test_what_the_builder_adds_for_draft_tokens_is_no_difference():
    params = asked(speculative=LOOKAHEAD)
    assert compare(params, config_json(params)) == []
    params = asked(speculative=EAGLE)
    found = config_json(params)
    found["pretrained_config"]["num_eagle_layers"] = 4
    found["build_config"]["max_seq_len"] += 4
    assert compare(params, found) == []
    found["build_config"]["max_seq_len"] -= 5
    assert compare(params, found) == [Difference(name="max_seq_len", asked=4096, built=4155, reduces=True)]


@pytest.mark.parametrize(
    ("place", "value", "expected"),
    [
        (("max_batch_size",), 32, Difference(name="max_batch_size", asked=64, built=32, reduces=True)),
        (("max_batch_size",), 128, Difference(name="max_batch_size", asked=64, built=128, reduces=False)),
        (("max_num_tokens",), 4096, Difference(name="max_num_tokens", asked=8192, built=4096, reduces=True)),
        (("opt_num_tokens",), 8, Difference(name="opt_num_tokens", asked=64, built=8, reduces=False)),
        (("gather_context_logits",), False, Difference(name="gather_context_logits", asked=True, built=False, reduces=True)),
        (("kv_cache_type",), "CONTINUOUS", Difference(name="kv_cache_type", asked="paged", built="CONTINUOUS", reduces=True)),
        (("plugin_config", "use_fused_mlp"), False, Difference(name="use_fused_mlp", asked="enable", built=False, reduces=False)),
        (("plugin_config", "use_paged_context_fmha"), False,
         Difference(name="use_paged_context_fmha", asked="enable", built=False, reduces=True)),
        (("plugin_config", "gpt_attention_plugin"), "float16",
         Difference(name="gpt_attention_plugin", asked="auto", built="float16", reduces=False)),
        (("plugin_config", "gpt_attention_plugin"), "bfloat16", None),  # what auto resolves to
        (("plugin_config", "gemm_plugin"), False, None),
        (("use_strip_plan",), True, Difference(name="strip_plan", asked=False, built=True, reduces=True)),
        (("lora_config", "max_lora_rank"), 8, None),  # not said without the plugin
    ],
)  # fmt: skip
def test_a_difference_is_told_and_says_whether_less_is_served(
    place: tuple[str, ...], value, expected: Difference | None
):
    params = asked(options={"use_paged_context_fmha": True})
    found = copy.deepcopy(config_json(params))
    table = found["build_config"]
    for name in place[:-1]:
        table = table[name]
    assert place[-1] in table
    table[place[-1]] = value
    assert compare(params, found) == ([expected] if expected else [])


def test_lora_is_compared_where_it_is_on():
    params = asked(options={"lora_plugin": "auto", "lora_target_modules": ["attn_q"], "max_lora_rank": 16})
    found = config_json(params)
    assert compare(params, found) == []
    found["build_config"]["lora_config"]["max_lora_rank"] = 8
    assert [one.name for one in compare(params, found) if one.reduces] == ["max_lora_rank"]


def test_ranks_and_formats_have_to_be_those_asked_for():
    params = asked(format="fp8", kv_cache="fp8", engine={"tp": 2})
    assert compare(params, config_json(params, "FP8")) == []
    found = config_json(params)
    found["pretrained_config"]["mapping"]["tp_size"] = 1
    found["pretrained_config"]["quantization"]["kv_cache_quant_algo"] = None
    assert {(one.name, one.reduces) for one in compare(params, found)} == {
        ("tp", True), ("quant_algo", True), ("kv_cache_quant_algo", True),
    }  # fmt: skip


def test_what_config_json_does_not_say_is_reported_and_no_reduction():
    params = asked()
    found = config_json(params)
    del found["build_config"]["plugin_config"]["paged_state"]
    del found["build_config"]["max_batch_size"]
    assert compare(params, found) == [
        Difference(name="max_batch_size", asked=64, built=ABSENT, reduces=False),
        Difference(name="paged_state", asked="enable", built=ABSENT, reduces=False),
    ]
    assert str(compare(params, found)[0]) == "max_batch_size: asked 64, built not said"
    old = config_json(asked("0.8.0"))
    del old["pretrained_config"]["mapping"]["moe_ep_size"]
    assert compare(asked("0.8.0"), old) == []


def test_a_fused_mlp_outside_of_the_plugins_is_found():
    params = asked()
    found = config_json(params)
    found["build_config"]["use_fused_mlp"] = found["build_config"]["plugin_config"].pop("use_fused_mlp")
    assert compare(params, found) == []

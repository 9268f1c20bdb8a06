"""The quantization blocks of a checkpoint, as ModelOpt 0.47's Hugging Face export writes them; pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypedDict, cast

from recipes.formats import Format


class LayerBlock(TypedDict, total=False):
    """The entry of a quantized linear."""

    quant_algo: str
    group_size: int
    has_zero_point: bool
    pre_quant_scale: bool


class QuantizationBlock(TypedDict, total=False):
    """Field `quantization` of hf_quant_config.json; with one algorithm, it has the fields of its entry."""

    quant_algo: str | None
    group_size: int
    has_zero_point: bool
    pre_quant_scale: bool
    kv_cache_quant_algo: str | None
    exclude_modules: list[str]
    quantized_layers: dict[str, LayerBlock]


class Producer(TypedDict):
    """The program that wrote a checkpoint."""

    name: str
    version: str


class QuantConfig(TypedDict):
    """Contents of hf_quant_config.json."""

    producer: Producer
    quantization: QuantizationBlock


class TensorScheme(TypedDict, total=False):
    """How weights or inputs are rounded."""

    dynamic: bool
    num_bits: int
    type: str
    strategy: str
    group_size: int


class Scheme(TypedDict, total=False):
    """An entry of `config_groups`."""

    input_activations: TensorScheme
    weights: TensorScheme
    targets: list[str]


class ConfigBlock(TypedDict, total=False):
    """Field `quantization_config` of config.json."""

    config_groups: dict[str, Scheme]
    quantized_layers: dict[str, LayerBlock]
    ignore: list[str]
    quant_algo: str
    kv_cache_scheme: TensorScheme | str
    producer: Producer
    quant_method: str


ALGORITHMS = {"W4A16": "W4A16_AWQ"}
"""TensorRT-LLM's name -> ModelOpt's in this layout, where it differs: int4 blocks have one name, and
`pre_quant_scale` is true of them, whether their inputs are smoothed or not."""

KV_ALGORITHMS: dict[str, str | None] = {"auto": None, "fp8": "FP8", "int8": "INT8"}
KV_SCHEMES: dict[str, TensorScheme | str] = {
    "FP8": {"dynamic": False, "num_bits": 8, "type": "float"},
    "INT8": "INT8",
}

STATIC: TensorScheme = {"dynamic": False, "num_bits": 8}
SCHEMES: dict[str, Scheme] = {
    "FP8": {"input_activations": STATIC | {"type": "float"}, "weights": STATIC | {"type": "float"}},
    "FP8_PER_CHANNEL_PER_TOKEN": {
        "input_activations": STATIC | {"type": "float"},
        "weights": STATIC | {"type": "float", "strategy": "channel"},
    },
    "W8A8_SQ_PER_CHANNEL": {
        "input_activations": STATIC | {"type": "int"},
        "weights": STATIC | {"type": "int", "strategy": "channel"},
    },
    "W8A16": {"weights": STATIC | {"type": "int"}},
    "W4A16_AWQ": {"weights": {"dynamic": False, "num_bits": 4, "type": "int", "group_size": 128}},
    "W4A8_AWQ": {
        "input_activations": STATIC | {"type": "float", "group_size": 128},
        "weights": {"dynamic": False, "num_bits": 4, "type": "float", "group_size": 128},
    },
}
"""Algorithm -> what ModelOpt says of it in a mixed checkpoint's `config_groups`; it calls the int4 weights
of W4A8_AWQ `float`."""


def layer_block(fmt: Format) -> LayerBlock:
    """The entry of one quantized linear."""
    block: LayerBlock = {"quant_algo": ALGORITHMS.get(fmt.quant_algo, fmt.quant_algo)}
    if fmt.block_size:
        block |= {"group_size": fmt.block_size, "has_zero_point": False, "pre_quant_scale": True}
    return block


def quantization_block(
    modelopt_version: str, formats: Mapping[str, Format], unquantized: Sequence[str], kv_type: str
) -> QuantConfig:
    """Contents of hf_quant_config.json: the format of every quantized linear, and the excluded modules.

    A single algorithm is listed once, with the excluded modules; several are listed per linear.
    """
    layers = {name: layer_block(fmt) for name, fmt in formats.items()}
    # Layers of one algorithm have equal entries, so one of them speaks for all.
    kinds = {layer["quant_algo"]: layer for layer in layers.values()}
    kv_algorithm = KV_ALGORITHMS[kv_type]
    block: QuantizationBlock
    if len(kinds) == 1:
        (layer,) = kinds.values()
        # Its `quant_algo` takes the place of None, which fixes the order of the fields.
        fields = {"quant_algo": None, "kv_cache_quant_algo": kv_algorithm, **layer}
        block = cast("QuantizationBlock", fields)
        block["exclude_modules"] = summary(unquantized, layers)
    else:
        algorithm = "MIXED_PRECISION" if kinds else None
        block = {"quant_algo": algorithm, "kv_cache_quant_algo": kv_algorithm, "quantized_layers": layers}
    return {"producer": {"name": "modelopt", "version": modelopt_version}, "quantization": block}


def summary(unquantized: Iterable[str], quantized: Iterable[str]) -> list[str]:
    """The shortest patterns `prefix*` or `prefix.*` that match unquantized modules and no quantized one."""
    quantized = tuple(quantized)
    return sorted({_pattern(name, quantized) for name in unquantized})


def _pattern(name: str, quantized: Sequence[str]) -> str:
    parts = name.split(".")
    for count in range(1, len(parts)):
        prefix = ".".join(parts[:count])
        # `prefix*` also matches longer names, so it must not be the beginning of any quantized one.
        if not any(other.startswith(prefix) for other in quantized):
            return f"{prefix}*"
        if not any(f"{other}.".startswith(f"{prefix}.") for other in quantized):
            return f"{prefix}.*"
    return name


def config_block(quantization: QuantConfig) -> ConfigBlock:
    """The block `quantization_config` of config.json for the contents of hf_quant_config.json."""
    details = quantization["quantization"]
    block: ConfigBlock = {}
    if details["quant_algo"] == "FP8":
        block["config_groups"] = {"group_0": SCHEMES["FP8"] | {"targets": ["Linear"]}}
    if details["quant_algo"] == "MIXED_PRECISION":
        block["config_groups"] = _config_groups(details["quantized_layers"])
        block["quantized_layers"] = details["quantized_layers"]
    block["ignore"] = list(details.get("exclude_modules", []))
    if details["quant_algo"]:
        block["quant_algo"] = details["quant_algo"]
    if details["kv_cache_quant_algo"]:
        block["kv_cache_scheme"] = KV_SCHEMES[details["kv_cache_quant_algo"]]
    block["producer"] = quantization["producer"]
    block["quant_method"] = "modelopt"
    return block


def _config_groups(layers: Mapping[str, LayerBlock]) -> dict[str, Scheme]:
    """One group per algorithm, in the order in which the layers have them."""
    targets: dict[str, list[str]] = {}
    for name, layer in layers.items():
        targets.setdefault(layer["quant_algo"], []).append(name)
    return {
        f"group_{number}": SCHEMES[algorithm] | {"targets": sorted(names)}
        for number, (algorithm, names) in enumerate(targets.items())
    }

"""What a quantized checkpoint says of its own precision, alone or against what a recipe asks for; pure."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from pipeline.checkpoint.layout_checks import pattern_of
from pipeline.errors import SourceError
from recipes.formats import FORMATS, Format
from recipes.precision import Precision

BLOCK_ALGORITHM = "W4A16_AWQ"
"""ModelOpt's name, in this layout, for int4 blocks; only the tensors tell if inputs are smoothed."""

KV_SCHEMES = {"auto": "none", "fp8": "8-bit float", "int8": "INT8"}
"""The recipe's type of KV cache -> how the checkpoint's `kv_cache_scheme` is told."""

STORE_FACTORS = (".o_proj", ".down_proj", ".w2")
"""Linears without a norm before them: they store their smoothing factors."""

SHOWN = 20


def differences(
    block: Mapping[str, Any], precision: Precision, kv_cache: str, modules: Sequence[str]
) -> list[str]:
    """Says where a checkpoint's block `quantization_config` is not the recipe's precision.

    One line if all linears differ in the same way, else one line per linear.
    """
    mismatches = [
        (name, says, precision.of(name))
        for name, says in _list_algorithms(block, modules)
        if says != algorithm(precision.of(name))
    ]
    kinds = {(says, fmt) for _, says, fmt in mismatches}
    if len(mismatches) == len(modules) and len(kinds) == 1 and precision.uniform:
        _, says, fmt = mismatches[0]
        problems = [
            f"config.json states quantization {says or 'none'!r}, "
            f"format {fmt.name!r} is {algorithm(fmt) or 'none'!r}"
        ]
    else:
        problems = [_describe_difference(name, says, precision) for name, says, _ in mismatches[:SHOWN]]
        problems += [f"... and {len(mismatches) - SHOWN} more linears"] if len(mismatches) > SHOWN else []
    return problems + list(_compare_kv_cache(block, kv_cache))


def precision(block: Mapping[str, Any], modules: Sequence[str], tensors: Collection[str]) -> Precision:
    """Reads the format of every linear from a checkpoint's block `quantization_config`.

    Only `tensors`, the names of all, tell whether int4 blocks are smoothed: the factors of some linears are
    folded into the norm before them, those of others are stored. A format that is not ours is a SourceError.
    """
    smoothed = any(name.endswith(".pre_quant_scale") for name in tensors)
    formats = {
        name: _read_format(says, name, tensors, smoothed) for name, says in _list_algorithms(block, modules)
    }
    # The most common format is the default, so that few linears are listed as exceptions.
    default = Counter(fmt.name for fmt in formats.values()).most_common(1)[0][0]
    exceptions = {name: fmt.name for name, fmt in formats.items() if fmt.name != default}
    return Precision.parse({"default": default, "except": exceptions} if exceptions else default)


def _read_format(says: str, name: str, tensors: Collection[str], smoothed: bool) -> Format:  # noqa: FBT001 a fact
    candidates = [fmt for fmt in FORMATS.values() if algorithm(fmt) == says]
    if not candidates:
        algorithms = ", ".join(dict.fromkeys(algorithm(fmt) for fmt in FORMATS.values() if fmt.quant_algo))
        raise SourceError(f"{name}: config.json states quantization {says!r}; supported: {algorithms}")
    if len(candidates) == 1:
        return candidates[0]
    # o_proj and down_proj follow no norm, so AWQ cannot fold their factors: a smoothed one stores them.
    folds = f"{name}.pre_quant_scale" in tensors or not name.endswith(STORE_FACTORS)
    return FORMATS["int4_awq" if smoothed and folds else "int4_wo"]


def kv_cache(block: Mapping[str, Any]) -> str:
    """Reads the type of the KV cache, in the recipe's words; another than ours is a SourceError."""
    scheme = _read_kv_scheme(block)
    for name, kv_scheme in KV_SCHEMES.items():
        if kv_scheme == scheme:
            return name
    raise SourceError(f"config.json states KV cache {scheme!r}; supported: {', '.join(KV_SCHEMES.values())}")


def algorithm(fmt: Format) -> str:
    """ModelOpt's name of a format in this layout; empty for `none`."""
    return BLOCK_ALGORITHM if fmt.weight == "int4" and fmt.activation == "source" else fmt.quant_algo


def _list_algorithms(block: Mapping[str, Any], modules: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yields every linear and the algorithm that the checkpoint states for it."""
    layers = block.get("quantized_layers")
    ignored, everywhere = (
        block.get("ignore") or (),
        block.get("quant_algo") or block.get("quant_method") or "",
    )
    # transformers requires `quant_method` in every block, also where no weight is quantized.
    if everywhere == "modelopt":  # only the KV cache is quantized
        everywhere = ""
    for name in modules:
        if layers is not None:
            yield name, layers.get(name, {}).get("quant_algo") or ""
        else:
            yield name, "" if any(fnmatchcase(name, pattern) for pattern in ignored) else everywhere


def _describe_difference(name: str, says: str, precision: Precision) -> str:
    fmt, pattern = precision.of(name), pattern_of(precision, name)
    by = f"by the exception {pattern!r}" if pattern else "by default"
    recipe = f"{by} it is {fmt.name!r}, {algorithm(fmt) or 'none'!r}"
    return f"{name}: config.json states {says or 'none'!r}; {recipe}"


def _compare_kv_cache(block: Mapping[str, Any], kv_cache: str) -> Iterator[str]:
    scheme = _read_kv_scheme(block)
    if scheme != KV_SCHEMES[kv_cache]:
        yield f"config.json states KV cache {scheme!r}, kv_cache {kv_cache!r} is {KV_SCHEMES[kv_cache]!r}"


def _read_kv_scheme(block: Mapping[str, Any]) -> str:
    scheme = block.get("kv_cache_scheme") or "none"
    if isinstance(scheme, Mapping):
        return f"{scheme.get('num_bits')}-bit {scheme.get('type')}"
    return str(scheme)

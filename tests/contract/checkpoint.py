"""What TensorRT-LLM's loader wants of a rank file: names, shapes and types, from config.json and public facts.

The facts are the files of tests/pipeline/checkpoint/data/tensor_names: what each release's own classes declare,
none of it from our converter. A missing tensor is an error and an unexpected one a warning, as there; a wrong
shape or type is an error here, where the loader would stumble later.
"""

import json
import math
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from tests.contract.log import say

FACTS = Path(__file__).resolve().parents[1] / "pipeline/checkpoint/data/tensor_names"

Kind = tuple[tuple[str, ...], tuple[int, ...]]
"""Types that are accepted, and the shape."""
Expected = dict[str, Kind]

NAMES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
NEWEST = "1.2.0"

MANDATORY = ("architecture", "dtype", "hidden_size", "num_hidden_layers", "num_attention_heads")
QUANTIZATION_KEYS = {
    "quant_algo", "kv_cache_quant_algo", "group_size", "smoothquant_val", "clamp_val", "use_meta_recipe",
    "has_zero_point", "pre_quant_scale", "exclude_modules",
}  # fmt: skip


@cache
def facts(name: str) -> dict[str, Any]:
    """One file of facts."""
    return json.loads((FACTS / f"{name}.json").read_text())


def minor(version: str) -> tuple[int, int]:
    """Major and minor part of a version or a release."""
    first, second = version.split(".")[:2]
    return int(first), int(second)


def era(architecture: str, version: str) -> dict[str, Any]:
    """What is known of an architecture in a version; KeyError where it has none."""
    for each in facts("networks")["families"].get(architecture, ()):
        if minor(each["first"]) <= minor(version) <= minor(each["last"]):
            return each
    raise KeyError(architecture)


def check(directory: Path, config: dict[str, Any], rank: int, version: str = NEWEST) -> None:
    """Raises what the loader would raise; KeyError, TypeError, RuntimeError or AssertionError."""
    for key in MANDATORY:
        config[key]
    if unknown := config["quantization"].keys() - QUANTIZATION_KEYS:
        raise TypeError(f"QuantConfig.__init__() got an unexpected keyword argument {sorted(unknown)[0]!r}")
    found = header(directory / f"rank{rank}.safetensors")
    wanted = Rank(directory, config, rank, version).tensors()
    if missing := sorted(wanted.keys() - found.keys() - {"lm_head.weight"}):
        raise RuntimeError(f"Required but not provided tensors:{set(missing)}")
    if extra := sorted(found.keys() - wanted.keys()):
        say("TRT-LLM", "W", f"Provided but not expected tensors: {set(extra)}")
    for name, (types, shape) in wanted.items():
        if name in found:
            assert found[name] in [(kind, shape) for kind in types], (
                f"{name}: {found[name]}, not {types} {shape}"
            )


def header(file: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name -> type and shape of every tensor of a safetensors file."""
    with file.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        entries = json.loads(stream.read(size))
    entries.pop("__metadata__", None)
    return {name: (entry["dtype"], tuple(entry["shape"])) for name, entry in entries.items()}


def gemms(config: dict[str, Any], rank: int) -> set[str]:
    """What a timing cache would know of a rank: its products by shape and type."""
    mapping, quantization = config["mapping"], config["quantization"]
    tp = mapping["tp_size"]
    head = rank // tp == mapping["pp_size"] - 1
    sizes = {
        f"qkv {config['hidden_size']} {config['num_attention_heads'] // tp}",
        f"dense {config['hidden_size']}", f"mlp {config['intermediate_size'] // tp}",
        *([f"head {config['vocab_size']}"] if head else []),
    }  # fmt: skip
    return {f"{size} {quantization['quant_algo']} {config['dtype']}" for size in sizes}


def sizes(config: Mapping[str, Any]) -> dict[str, int]:
    """The words of the facts' shapes, for one rank."""
    mapping, moe = config["mapping"], _moe(config)
    tp, heads, hidden = mapping["tp_size"], config["num_attention_heads"], config["hidden_size"]
    found = {
        "hidden": hidden, "hidden_part": hidden // tp, "head": config.get("head_size") or hidden // heads,
        "q": heads // tp, "kv": max(1, config["num_key_value_heads"] // tp),
        "inner": config["intermediate_size"] // tp, "vocab": math.ceil(config["vocab_size"] / tp),
    }  # fmt: skip
    if moe:
        inner = config.get("moe_intermediate_size") or config["intermediate_size"]
        found |= {
            "experts": moe["num_experts"], "held": moe["num_experts"] // mapping["moe_ep_size"],
            "expert_inner": inner // mapping["moe_tp_size"],
            "shared_inner": config.get("moe_shared_expert_intermediate_size", 0) // tp,
        }  # fmt: skip
    return found


def _moe(config: Mapping[str, Any]) -> dict[str, int]:
    """Sizes of the experts, from either spelling; empty without."""
    if "moe_num_experts" in config:
        return {"num_experts": config["moe_num_experts"]}
    return config.get("moe") or {}


class Rank:
    """The tensors of one rank."""

    def __init__(self, directory: Path, config: dict[str, Any], rank: int, version: str) -> None:
        mapping = config["mapping"]
        self.directory, self.rank, self.version, self.config = directory, rank, version, config
        self.tp, self.pp = mapping["tp_size"], mapping["pp_size"]
        assert mapping["world_size"] == self.tp * self.pp
        self.stage, self.dtype = rank // self.tp, NAMES[config["dtype"]]
        self.heads = facts("networks")["heads"].get(config["architecture"])
        base = "LlamaForCausalLM" if self.heads else config["architecture"]
        self.era = era(base, version)
        for field in self.era.get("config", ()):
            config[field]
        self.network = facts("networks")["networks"][self.era["network"]]
        self.sizes = sizes(config)
        mixed = directory / "quant_cfg.json"
        self.layers = json.loads(mixed.read_text())["quantized_layers"] if mixed.is_file() else None

    def tensors(self) -> Expected:
        """Every tensor that the rank needs."""
        self._refuse()
        found: Expected = {}
        if self.stage == 0:
            found |= self._plain("", self.network["first"])
        each, rest = divmod(self.config["num_hidden_layers"], self.pp)
        first = self.stage * each + min(self.stage, rest)
        for local in range(each + (self.stage < rest)):
            found |= self._layer(f"transformer.layers.{local}", f"transformer.layers.{first + local}")
        if self.stage == self.pp - 1:
            found |= self._plain("", self.network["last"])
        if self.config["architecture"] == "MedusaForCausalLM":
            found |= self._medusa()
        if self.config["architecture"] == "EagleForCausalLM":
            assert self.pp == 1, "Pipeline parallelism is not supported in EAGLE yet."
            for level in range(self.config["num_eagle_layers"]):
                found |= self._eagle(self.heads["per_net"].format(level))
        return found

    def _refuse(self) -> None:
        """What the network itself cannot be."""
        until, grouped = self.era.get("one_stage_until"), self.era.get("no_grouped_heads_until")
        assert not (until and self.pp > 1 and minor(self.version) <= minor(until)), "no pipeline parallelism"
        same = self.config["num_key_value_heads"] == self.config["num_attention_heads"]
        assert same or not grouped or minor(self.version) > minor(grouped), "no grouped heads"

    def _medusa(self) -> Expected:
        """The heads, which every stage makes; column-parallel layers, quantized unless they are left out."""
        found: Expected = {}
        assert self.config["max_draft_len"] > 0
        for head in range(self.config["num_medusa_heads"]):
            local = self.heads["per_head"].format(head)
            for layer in range(self.config["num_medusa_layers"]):
                name = self.heads["per_layer"].format(layer)
                found |= self._linears(local, local, {name: self.heads["layer"]})
                found |= self._plain(local, {f"{name}.bias": self.heads["layer_bias"]})
            found |= self._linears(local, local, self.heads["head"])
        return found

    def _eagle(self, here: str) -> Expected:
        """One copy of EAGLE's net: its layer is quantized as the base model, unless it is excluded."""
        net = {**self.config["eagle_net_config"], "quantization": self.config["quantization"]}
        inner = Rank(self.directory, net, self.rank, self.version)
        assert (inner.sizes["hidden"], inner.dtype) == (self.sizes["hidden"], self.dtype)
        assert net["num_hidden_layers"] == 1
        layer = f"{here}.{self.heads['drafter_layer']}"
        found = inner._layer(layer, layer)
        for name in self.heads["without"]:
            del found[f"{layer}.{name}"]
        inner_vocab = inner._plain(here, self.heads["tensors"])
        return found | inner_vocab | inner._linears(here, here, self.heads["linears"])

    def _layer(self, local: str, whole: str) -> Expected:
        network = self.network
        found = self._plain(local, network["layer"])
        found |= self._linears(local, whole, network["linears"])
        found |= self._linears(local, whole, network["stacks"], kind="stack")
        for name, switch in network["biases"].items():
            if self.config.get(switch):
                outputs = network["linears"][name][0]
                found |= self._plain(local, {f"{name}.bias": ["dtype", [outputs]]})
        if self.config["quantization"]["kv_cache_quant_algo"]:
            found |= self._plain(local, network["kv_cache"])
        return found

    def _plain(self, local: str, tensors: Mapping[str, Any]) -> Expected:
        """Tensors that no format touches."""
        before = f"{local}." if local else ""
        return {
            f"{before}{name}": self._kind([types] if isinstance(types, str) else types, shape, self.sizes)
            for name, (types, shape) in tensors.items()
        }

    def _linears(
        self, local: str, whole: str, linears: Mapping[str, list[str]], kind: str = "linear"
    ) -> Expected:
        """The tensors of linears or of stacks in their formats; KeyError for a format that was not there yet."""
        found: Expected = {}
        for name, (outputs, inputs) in linears.items():
            block = self._quantization(f"{whole}.{name}")
            algorithm = block.get("quant_algo") or "none"
            known = facts("formats")[kind][algorithm]
            lacking = self.era.get("without", {}).get("{}.{}".format(*minor(self.version)), ())
            if minor(self.version) < minor(known["first"]) or algorithm in lacking:
                raise KeyError(algorithm)
            words = self.sizes | {"group": block.get("group_size", 1)}
            words |= {"out": value(outputs, words), "in": value(inputs, words)}
            assert words["in"] % words["group"] == 0, f"{name}: no whole groups of {words['group']}"
            more = known.get("pre_quant_scale", {}) if block.get("pre_quant_scale") else {}
            for tensor, (types, shape) in (known["tensors"] | more).items():
                found[f"{local}.{name}.{tensor}"] = self._kind(types, shape, words)
        return found

    def _kind(self, types: list[str], shape: list[str], words: Mapping[str, int]) -> Kind:
        named = tuple(self.dtype if each == "dtype" else each for each in types)
        return named, tuple(value(each, words) for each in shape)

    def _quantization(self, name: str) -> dict[str, Any]:
        block = self.config["quantization"]
        if block["quant_algo"] == "MIXED_PRECISION":
            return (self.layers or {}).get(name, {})
        if any(fnmatchcase(name, pattern) for pattern in block.get("exclude_modules") or ()):
            return {}
        return block


def value(expression: str, words: Mapping[str, int]) -> int:
    """A size such as `(q + 2 * kv) * head`; sums and products of words and numbers, left to right."""
    tokens = iter(expression.replace("(", " ( ").replace(")", " ) ").split())
    return _sum(tokens, words)


def _sum(tokens: Iterator[str], words: Mapping[str, int]) -> int:
    """Adds products up to the end or a closing bracket."""
    total, product, operator = 0, None, "*"
    for token in tokens:
        if token == ")":
            break
        if token == "+":
            total, product = total + (product or 0), None
        elif token in ("*", "//"):
            operator = token
        else:
            each = _sum(tokens, words) if token == "(" else words[token] if token in words else int(token)
            product = each if product is None else product * each if operator == "*" else product // each
    return total + (product or 0)

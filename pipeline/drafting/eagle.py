"""EAGLE: a net of one layer that proposes tokens from the model's last hidden states; pure.

TensorRT-LLM builds the net of EAGLE-1 into the engine (`models/eagle/model.py`), once for every level of a
tree of proposals that is fixed at build time. Its PyTorch backend loads nets of EAGLE-3 alone
(`_torch/models/modeling_speculative.py`), which read three layers of the model instead of one.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pipeline.drafting.heads import Kind
from pipeline.drafting.medusa_tree import choices
from pipeline.models.config_json import read_shape
from pipeline.models.shape import ModelShape

LLAMA = "LlamaForCausalLM"

Path = tuple[int, ...]
"""A node of the tree: which candidate is taken at each level, from the most likely, 0, on."""

DEPTH = 4
"""Levels of the tree, at most: as many as TensorRT-LLM's converter makes if it is not told otherwise."""


def tree(max_draft_len: int) -> tuple[Path, ...]:
    """The tree of proposals: the beginning of TensorRT-LLM's default, which was measured for Medusa."""
    return choices(DEPTH, max_draft_len)


def depth(paths: Iterable[Path]) -> int:
    """Levels of a tree: TensorRT-LLM wants one copy of the net for each."""
    return max(len(path) for path in paths)


def widest(paths: Iterable[Path]) -> int:
    """Largest number of nodes with children in one level; the root is one."""
    # the root, (), is the parent of every path of one choice
    parents = {path[:-1] for path in paths}
    return max(Counter(len(path) for path in parents).values())


def generation(tensors: Mapping[str, Kind]) -> int:
    """1 or 3, from a net's tensor names and shapes; 0 where it is the net of neither.

    EAGLE-1 joins embedding and hidden state, `fc.weight` [hidden, 2 * hidden]; EAGLE-3 joins several layers.
    """
    _, joined = tensors.get("fc.weight", ("", ()))
    if len(joined) != 2:
        return 0
    # EAGLE-3 joins the hidden states of three layers, and its one layer is named `midlayer`.
    if joined[1] > 2 * joined[0] or any(name.startswith("midlayer.") for name in tensors):
        return 3
    return 1 if joined[1] == 2 * joined[0] else 0


def net_shape(config: Mapping[str, Any]) -> ModelShape:
    """Reads a net's config.json, which may name an architecture of its own, as that of a Llama."""
    return read_shape({**config, "architectures": [LLAMA], "model_type": "llama"})


def third_reasons(
    config: Mapping[str, Any], tensors: Mapping[str, Kind], shape: ModelShape, pp: int
) -> Iterator[str]:
    """Yields why TensorRT-LLM's PyTorch backend cannot load a net for a model; SourceError for a config."""
    if generation(tensors) != 3:
        yield (
            "speculative.draft: the net is not of EAGLE-3, which is all that TensorRT-LLM's PyTorch backend "
            "loads; choose such a net, or engine.backend 'tensorrt' for one of EAGLE-1"
        )
        return
    if shape.architecture != LLAMA:
        yield (
            f"speculative.mode: EAGLE-3 was not seen to work with {shape.architecture} in TensorRT-LLM's "
            f"PyTorch backend; choose a model of {LLAMA}, or another mode"
        )
    if pp > 1:
        yield f"engine.pp: EAGLE-3 was seen with tensor parallelism only, found {pp} stages; set it to 1"
    net = net_shape(config)
    # a net may be narrower than its model; it states the model's width then
    target_hidden = config.get("target_hidden_size", net.hidden_size)
    for field, net_value, model_value in (
        ("hidden size", target_hidden, shape.hidden_size),
        ("vocabulary", net.vocab_size, shape.vocab_size),
    ):
        if net_value != model_value:
            yield (
                f"speculative.draft: the net's {field} is {net_value}, the model's {model_value}; choose a "
                "net that was trained for this model"
            )

"""The LLM classes of both backends, and the configuration they take."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tensorrt_llm import _autotuner
from tensorrt_llm._installed import HOST, MINOR, ROOT, RUNTIME, TENSORRT, before, die_in
from tensorrt_llm._plain import of_checkpoint, of_engine

MEDUSA, LOOKAHEAD, EAGLE = 4, 8, 32
"""Their numbers in config.json."""

TABLES = ROOT / "pipeline" / "engines" / "trtllm_torch" / "llm_options"


@dataclass
class KvCacheConfig:
    enable_block_reuse: bool = not before(0, 17)
    free_gpu_memory_fraction: float | None = None
    max_attention_window: list[int] | None = None


@dataclass
class LookaheadDecodingConfig:
    max_window_size: int = 4
    max_ngram_size: int = 3
    max_verification_set_size: int = 4

    @property
    def tokens(self) -> int:
        branches = self.max_window_size - 1 + self.max_verification_set_size
        return max(self.max_ngram_size - 2, 0) + branches * (self.max_ngram_size - 1)


@dataclass
class MedusaDecodingConfig:
    max_draft_len: int | None = None
    medusa_choices: list[list[int]] | None = None
    num_medusa_heads: int | None = None


@dataclass
class EagleDecodingConfig:
    max_draft_len: int | None = None
    speculative_model_dir: str | None = None
    eagle_choices: list[list[int]] | None = None


@dataclass
class Completion:
    token_ids: list[int] = field(default_factory=list)


@dataclass
class Answer:
    prompt_token_ids: list[int]
    outputs: list[Completion]
    context_logits: torch.Tensor | None = None


def update_llm_args_with_extra_dict(
    llm_args: dict[str, Any], llm_args_dict: dict[str, Any]
) -> dict[str, Any]:
    """What trtllm-serve does with a YAML file: the file's values over the others."""
    return {**llm_args, **llm_args_dict}


class Base:
    """What both classes share; a subclass sets the attributes."""

    plain: Any
    """The model; None once the engine was shut down."""
    limits: dict[str, Any]
    reuse: bool
    gathers: bool

    def _ready(self) -> None:
        self.seen: list[list[int]] = []
        die_in("load")

    def generate(self, inputs: list[list[int]], sampling_params=None, use_tqdm: bool = True) -> list[Answer]:
        die_in("generate")
        return [asyncio.run(self._last(prompt, sampling_params)) for prompt in inputs]

    async def _last(self, prompt: list[int], params) -> Answer:
        async for answer in self._run(prompt, params):
            last = answer
        return last

    def generate_async(self, inputs: list[int], sampling_params=None, streaming: bool = False):
        die_in("generate_async")
        assert streaming
        return self._run(inputs, sampling_params)

    async def _run(self, prompt: list[int], params) -> AsyncIterator[Answer]:
        self._check(prompt, params)
        logits = self.plain.logits(prompt)
        answer = Answer(list(prompt), [Completion()], self._context(prompt, logits, params))
        random = torch.Generator().manual_seed(_seed(params) or 0)
        last = logits[-1]
        while True:
            token = self._pick(last, params, random)
            answer.outputs[0].token_ids.append(token)
            await asyncio.sleep(RUNTIME["seconds_per_token"])
            yield answer
            ends = {params.end_id, *(params.stop_token_ids or [])}
            if token in ends or len(answer.outputs[0].token_ids) >= params.max_tokens:
                return
            last = self.plain.logits([*prompt, *answer.outputs[0].token_ids])[-1]

    def _pick(self, logits: torch.Tensor, params, random: torch.Generator) -> int:
        if params.temperature and params.top_k != 1:
            return int(torch.multinomial((logits / params.temperature).softmax(-1), 1, generator=random))
        return int(logits.argmin() if RUNTIME["wrong_weights"] else logits.argmax())

    def _context(self, prompt: list[int], logits: torch.Tensor, params) -> torch.Tensor | None:
        """The prompt's logits, less those of a prefix that is reused."""
        if not params.return_context_logits or not self.gathers:
            return None
        kept = 0
        if self.reuse:
            kept = max((_common(prompt, other) for other in self.seen), default=0)
            self.seen.append(list(prompt))
        return logits[min(kept, len(prompt) - 1) :]

    def _check(self, prompt: list[int], params) -> None:
        longest = len(prompt) + params.max_tokens
        if longest > self.limits["max_seq_len"]:
            raise ValueError(
                f"The sum of prompt length ({len(prompt)}), max_tokens ({params.max_tokens}) should not exceed "
                f"max_seq_len ({self.limits['max_seq_len']})"
            )

    def shutdown(self) -> None:
        self.plain = None


def _seed(params) -> int | None:
    return params.random_seed if hasattr(params, "random_seed") else params.seed


def _common(one: list[int], other: list[int]) -> int:
    """Tokens that both begin with."""
    different = (n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(different, min(len(one), len(other)))


def _check_lookahead(built: dict[str, Any], config: LookaheadDecodingConfig | None) -> None:
    """What the C++ runtime checks of a lookahead engine."""
    if built.get("speculative_decoding_mode") not in (LOOKAHEAD, "LOOKAHEAD_DECODING"):
        return
    if config is None:
        raise RuntimeError(
            "[TensorRT-LLM][ERROR] Assertion failed: Lookahead decoding config must be provided"
        )
    if config.tokens > built["max_draft_len"]:
        raise RuntimeError(
            "[TensorRT-LLM][ERROR] Assertion failed: maxDraftTokens <= getMaxDecodingDraftTokens()"
        )


def _check_medusa(config: dict[str, Any], told: MedusaDecodingConfig | None) -> None:
    """What the C++ runtime needs of a tree: room for its nodes, and a head for each level."""
    built, pretrained = config["build_config"], config["pretrained_config"]
    if built.get("speculative_decoding_mode") not in (MEDUSA, "MEDUSA"):
        return
    if not isinstance(told, MedusaDecodingConfig) or not told.medusa_choices:
        raise RuntimeError("[TensorRT-LLM][ERROR] Assertion failed: Medusa choices must be provided")
    nodes = {tuple(path) for path in told.medusa_choices}
    assert all(path[:-1] in nodes or len(path) == 1 for path in nodes)
    assert max(map(len, nodes)) <= pretrained["num_medusa_heads"]
    assert len(nodes) <= built["max_draft_len"] == pretrained["max_draft_len"]


def _check_eagle(config: dict[str, Any], told: EagleDecodingConfig | None) -> None:
    """What the C++ runtime needs of EAGLE-1's tree: a net for each level, room for nodes and for parents."""
    built, pretrained = config["build_config"], config["pretrained_config"]
    if built.get("speculative_decoding_mode") not in (EAGLE, "EAGLE"):
        return
    if not isinstance(told, EagleDecodingConfig) or not told.eagle_choices:
        raise RuntimeError("[TensorRT-LLM][ERROR] Assertion failed: the default tree has another depth")
    assert told.speculative_model_dir, "Path to EAGLE3 weights must be specified."
    nodes = {tuple(path) for path in told.eagle_choices}
    assert all(path[:-1] in nodes or len(path) == 1 for path in nodes)
    assert max(map(len, nodes)) == pretrained["num_eagle_layers"]
    assert len(nodes) <= built["max_draft_len"] == pretrained["max_draft_len"]
    for level in range(pretrained["num_eagle_layers"]):
        parents = {path[:-1] for path in nodes if len(path) == level + 1}
        assert len(parents) <= pretrained["max_non_leaves_per_layer"]


class EngineLLM(Base):
    """LLM of built engines."""

    def __init__(
        self, model: str, skip_tokenizer_init: bool = False, kv_cache_config=None, speculative_config=None
    ) -> None:
        directory = Path(model)
        config = json.loads((directory / "config.json").read_text())
        _check_lookahead(config["build_config"], speculative_config)
        _check_medusa(config, speculative_config)
        _check_eagle(config, speculative_config)
        for file in sorted(directory.glob("rank*.engine")):
            header = json.loads(file.read_bytes().split(b"\n", 1)[0])
            if header["tensorrt"] != TENSORRT:
                raise RuntimeError(
                    "The engine plan file is not compatible with this version of TensorRT, expecting library "
                    f"version {TENSORRT} got {header['tensorrt']}, please rebuild."
                )
            if header["gpu"] != HOST["gpu"]:
                raise RuntimeError("The engine plan file is generated on an incompatible device.")
        self.limits = config["build_config"]
        self.gathers = bool(self.limits["gather_context_logits"])
        cache = kv_cache_config or KvCacheConfig()
        self.reuse = cache.enable_block_reuse
        # The engine itself holds no windows; a list that is shorter than the layers is repeated.
        told, layers = cache.max_attention_window or [None], config["pretrained_config"]["num_hidden_layers"]
        config["pretrained_config"]["layer_windows"] = [told[layer % len(told)] for layer in range(layers)]
        config["pretrained_config"]["sliding_window"] = None
        self.plain = of_engine(directory, config, self.limits["max_seq_len"] + 1)
        self._ready()


class TorchLLM(Base):
    """LLM of the PyTorch backend; unknown keys are refused, those of nested configurations too."""

    def __init__(self, model: str, skip_tokenizer_init: bool = False, **options) -> None:
        table = json.loads((TABLES / f"{MINOR[0]}.{MINOR[1]}.json").read_text())
        _refuse_unknown(options, table)
        kv_cache = options.get("kv_cache_config", {})
        self.limits, self.gathers = options, True
        self.reuse = kv_cache.get("enable_block_reuse", True)
        self.plain = of_checkpoint(Path(model), options["max_seq_len"] + 1)
        world_size = options.get("tensor_parallel_size", 1) * options.get("pipeline_parallel_size", 1)
        if options.get("enable_autotuner", True):
            _autotuner.warm_up(os.environ.get("TLLM_AUTOTUNER_CACHE_PATH"), world_size, self.plain)
        self._ready()

    def _check(self, prompt: list[int], params) -> None:
        super()._check(prompt, params)
        most = self.limits["max_num_tokens"]
        if not self.limits.get("enable_chunked_prefill") and len(prompt) > most:
            raise ValueError(
                f"The sum of prompt length ({len(prompt)}) should not exceed max_num_tokens ({most})"
            )


ALSO = (
    "tensor_parallel_size", "pipeline_parallel_size", "moe_expert_parallel_size", "moe_tensor_parallel_size",
    "max_batch_size", "max_seq_len",
)  # fmt: skip


def _refuse_unknown(options: dict[str, Any], table: dict[str, Any]) -> None:
    for name, value in options.items():
        if name not in table["options"] and name not in ALSO:
            raise ValueError(f"1 validation error for TorchLlmArgs\n{name}\n  Extra inputs are not permitted")
        option = table["options"].get(name, {})
        if option.get("type") == "config" and value is not None:
            for key in value.keys() - table["configs"][option["config"]].keys():
                raise ValueError(
                    f"1 validation error for TorchLlmArgs\n{name}.{key}\n  Extra inputs are not permitted"
                )

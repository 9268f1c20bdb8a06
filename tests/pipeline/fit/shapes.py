"""Public models by their architecture's numbers, and requests for engines of them."""

from typing import Any

from pipeline import engines
from pipeline.backend.build_request import BuildRequest
from pipeline.backend.engine_memory import Limits
from pipeline.models.config_json import read_shape
from pipeline.models.shape import ModelShape
from pipeline.process.host import Host
from recipes.precision import Precision
from recipes.schema import Engine

HOST = Host(gpus=(), cpu="avx512f", cores=2, memory_bytes=24 << 30, tools={})


def model(
    hidden: int, layers: int, heads: tuple[int, int], inner: int, vocab: int, **more: Any
) -> ModelShape:
    """A Llama, unless `more` names another architecture; `heads` of queries and of keys."""
    return read_shape({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "bfloat16", "hidden_size": hidden,
        "num_hidden_layers": layers, "num_attention_heads": heads[0], "num_key_value_heads": heads[1],
        "intermediate_size": inner, "vocab_size": vocab, "max_position_embeddings": 131072, **more,
    })  # fmt: skip


QWEN: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "tie_word_embeddings": True,
}
LLAMA2_7B = model(4096, 32, (32, 32), 11008, 32000)
LLAMA3_8B = model(4096, 32, (32, 8), 14336, 128256)
LLAMA3_70B = model(8192, 80, (64, 8), 28672, 128256)
QWEN_05B = model(896, 24, (14, 2), 4864, 151936, **QWEN)
QWEN_15B = model(1536, 28, (12, 2), 8960, 151936, **QWEN)


def limits(request: BuildRequest) -> Limits:
    """The sizes of a request's engine, as its backend gives them."""
    return engines.backend(request.engine.backend).memory.limits(request)


def wanted(shape: ModelShape, fmt: str = "none", *, kv_cache: str = "auto", **settings: Any) -> BuildRequest:
    """A request for a TensorRT-LLM engine, unless `settings` names another backend."""
    more = {name: settings.pop(name) for name in ("traffic", "speculative", "draft") if name in settings}
    engine = Engine(**{"backend": "tensorrt", "target": "h100", **settings})
    return BuildRequest(
        engine=engine, shape=shape, precision=Precision.parse(fmt), kv_cache=kv_cache, host=HOST, **more
    )

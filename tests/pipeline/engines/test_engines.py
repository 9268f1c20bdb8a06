"""The seam between the planner and the backends."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from pipeline import engines
from pipeline.backend.build_request import BuildRequest
from pipeline.errors import BackendUnavailable
from pipeline.models.config_json import read_shape
from pipeline.plan.plan import cache_bytes
from pipeline.process.gpus import TARGETS
from pipeline.process.host import Gpu, Host
from pipeline.toolchains.toolchain import Choice, Toolchain
from recipes.precision import Precision
from recipes.schema import Engine, Speculative
from tests.present import present
from tests.structure.backends import backend_comparisons
from tests.structure.tree import read_checkout

ROOT = Path(__file__).resolve().parents[3]
LOOKAHEAD = Speculative(mode="lookahead_decoding", max_draft_len=4)
PRECISION = Precision.parse("none")
H100 = Gpu("NVIDIA H100 80GB HBM3", 90, TARGETS["h100"].memory_bytes, "550.54.15")
HOST = Host(
    gpus=(H100,), cpu="avx512f", cores=2, memory_bytes=1 << 34, tools={"torch": "2.13.0", "c++": "g++ 12"}
)
TOOLCHAIN = Toolchain(
    name="path", kind="path", location="/opt/bin", versions={"tensorrt_llm": "1.2.1", "tensorrt": "10.14.1"}
)
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "bfloat16", "hidden_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 128, "vocab_size": 100, "max_position_embeddings": 128,
}  # fmt: skip


def wanted(config=CONFIG, **changes) -> BuildRequest:
    """What a plain recipe asks of a backend."""
    given: dict[str, Any] = {
        "engine": Engine(),
        "shape": read_shape(config),
        "precision": PRECISION,
        "kv_cache": "auto",
        "host": HOST,
    }
    return BuildRequest(**(given | changes))


def asked(name, host=HOST) -> BuildRequest:
    """The same of one backend, with a toolchain where it builds with one."""
    choice = Choice(toolchain=TOOLCHAIN) if engines.backend(name).uses_toolchain else Choice()
    return wanted(engine=Engine(backend=name), host=host, choice=choice)


@pytest.mark.parametrize("name", engines.names())
def test_every_backend_answers_the_planner(name: str):
    backend, request = engines.backend(name), asked(name)
    model = backend.options(request)
    assert model().model_config["frozen"]
    assert all(field.description for field in model.model_fields.values())
    with pytest.raises(ValidationError, match="no_such_option"):
        model.model_validate({"no_such_option": 1})
    bare = asked(name, host=Host(gpus=(), cpu="avx2", cores=2, memory_bytes=1, tools={}))
    assert backend.missing(request) is None
    assert backend.missing(bare)
    assert backend.reasons(request) == []
    assert all(": " in note for note in backend.notes(request))
    assert backend.identity(request) != backend.identity(bare)
    decided = {option for option, value in model().model_dump().items() if value is not None}
    assert backend.settings(request).keys() >= decided
    for found in (backend.settings(request), backend.identity(request)):
        assert json.loads(json.dumps(found)) == found
    assert ":" in backend.build


@pytest.mark.parametrize("name", [name for name in engines.names() if engines.backend(name).uses_toolchain])
def test_a_backend_with_a_toolchain_says_why_there_is_none(name: Any):
    backend = engines.backend(name)
    without = wanted(engine=Engine(backend=name), choice=Choice(problem="several toolchains: a, b; name one"))
    assert "several toolchains: a, b; name one" in present(backend.missing(without))
    assert backend.identity(asked(name)) != backend.identity(without)
    assert backend.options(without)().model_config["frozen"]  # a recipe can be checked all the same


def test_no_room_outside_of_the_engines_decides_by_a_backends_name():
    assert backend_comparisons(read_checkout(ROOT)) == []


def test_the_schema_declares_the_names_of_all_backends():
    assert sorted(get_args(Engine.model_fields["backend"].annotation)) == engines.names()


@pytest.mark.parametrize("on_gpu", [True, False])
@pytest.mark.parametrize("version", ["", "0.16.0", "1.2.1", "1.3.0rc22", "2.0"])
def test_one_backend_suits_what_a_recipe_is_suggested_for(version: str, on_gpu: bool):
    programs = {"tensorrt_llm": version} if version else {}
    suggested = [
        one for one in engines.names() if engines.backend(one).suggested_for(programs, on_gpu=on_gpu)
    ]
    assert suggested == [engines.suggest(programs, on_gpu=on_gpu)]


def test_an_unknown_backend_lists_the_known_ones():
    with pytest.raises(BackendUnavailable, match="'onnx'; have aoti"):
        engines.backend("onnx")


def test_the_seam_imports_no_torch(run_python: Callable[[str], str]):
    code = "import sys; from pipeline import engines; [engines.backend(n) for n in engines.names()]; "
    assert run_python(code + "print('torch' in sys.modules)").strip() == "False"


def test_aoti_refuses_what_its_model_does_not_compute():
    rope = {"rope_type": "yarn", "factor": 4.0}
    [reason] = engines.backend("aoti").reasons(wanted({**CONFIG, "rope_parameters": rope}))
    assert reason.startswith("engine.backend: aoti does not compute rope_type 'yarn'")

    mistral = {
        **CONFIG,
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "sliding_window": 64,
    }
    assert engines.backend("aoti").reasons(wanted(mistral, engine=Engine(max_seq_len=100))) == []

    rope = {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
    phi = {
        **CONFIG,
        "architectures": ["Phi3ForCausalLM"],
        "model_type": "phi3",
        "pad_token_id": None,
        "rope_scaling": rope,
    }
    phi |= {"original_max_position_embeddings": 64}
    [reason] = engines.backend("aoti").reasons(wanted(phi, engine=Engine(max_seq_len=65)))
    assert reason.startswith("engine.max_seq_len: 65 exceeds 64, beyond which longrope")
    assert engines.backend("aoti").reasons(wanted(phi, engine=Engine(max_seq_len=64))) == []

    [reason] = engines.backend("aoti").reasons(wanted(speculative=LOOKAHEAD))
    assert reason.startswith("speculative: aoti decodes one token per step")


def test_a_plans_memory_counts_the_cache_at_its_limits_and_its_type():
    shape, engine = read_shape(CONFIG), Engine(tp=4, max_batch_size=3, max_seq_len=99)
    # Two tensors, two layers, two key heads repeated to four, 16 channels: bytes of one token.
    assert cache_bytes(engine, shape, "fp8") == 3 * 100 * (2 * 2 * 4 * 16)
    assert cache_bytes(engine, shape, "auto") == 2 * cache_bytes(engine, shape, "int8")

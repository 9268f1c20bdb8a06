"""What the planner hears from backend `tensorrt` about toolchains, GPUs and keys."""

import json
from typing import Any

import pytest

from pipeline import engines
from pipeline.process.gpus import TARGETS
from pipeline.process.host import Gpu
from pipeline.toolchains.toolchain import Choice
from pipeline.trtllm.target_gpus import gpus
from tests.pipeline.engines.tensorrt.asked import H100, TRAFFIC, host, wanted
from tests.present import present

BACKEND = engines.backend("tensorrt")


def gpu(name: str, target, driver: str = "550.54.15") -> Gpu:
    return Gpu(name, TARGETS[target].sm, TARGETS[target].memory_bytes, driver)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"choice": Choice(problem="no TensorRT-LLM: it is not on PATH; see `enginery tools toolchains`")},
         "backend tensorrt needs a TensorRT-LLM toolchain: no TensorRT-LLM: it is not on PATH; see"),
        ({"choice": Choice(problem="several toolchains: a (0.16.0), b (1.2.0); name one of them with engine.toolchain")},
         "name one of them with engine.toolchain"),
        ({"version": "0.20.0"}, "toolchain path: the options of TensorRT-LLM 0.20.0 are not known; have 0.8"),
        ({"version": "1.3.0rc22"}, "toolchain path: TensorRT-LLM 1.3.0rc22 builds no engines"),
        ({"host": host()}, "backend tensorrt needs 1 h100 GPU(s) here, to choose kernels on and to score the engine; this host has none"),
        ({"host": host(gpu("NVIDIA A100-SXM4-80GB", "a100"))}, "this host has NVIDIA A100-SXM4-80GB (sm_80); build on another host"),
        ({"host": host(H100), "engine": {"tp": 2}}, "needs 2 h100 GPU(s) here"),
        ({"host": host(), "engine": {"target": "host"}}, "needs 1 NVIDIA GPU(s) here"),
    ],
)  # fmt: skip
def test_what_the_host_lacks_is_said_with_what_to_do(changes: dict[str, Any], said: str):
    assert said in present(BACKEND.missing(wanted(**changes)))


def test_a_host_with_the_toolchain_and_enough_gpus_lacks_nothing():
    assert BACKEND.missing(wanted(engine={"tp": 2})) is None
    assert BACKEND.missing(wanted(engine={"target": "host"})) is None


@pytest.mark.parametrize(
    ("target", "name"),
    [("a100", "NVIDIA A100-SXM4-80GB"), ("a10", "NVIDIA A10"), ("l4", "NVIDIA L4"), ("l40s", "NVIDIA L40S"),
     ("h100", "NVIDIA H100 80GB HBM3"), ("h200", "NVIDIA H200"), ("b200", "NVIDIA B200")],
)  # fmt: skip
def test_a_gpu_is_of_the_one_type_that_its_name_says(target: str, name: str):
    found = {one for one in TARGETS if gpus(wanted(engine={"target": one}, host=host(gpu(name, target))))}
    assert target in found
    assert {one.split("-")[0] for one in found} == {target}


@pytest.mark.parametrize(
    ("name", "sm", "mib", "targets"),
    [
        ("NVIDIA A100-SXM4-80GB", 80, 81920, {"a100", "a100-80g"}),
        ("NVIDIA A100-SXM4-40GB", 80, 40960, {"a100-40g"}),
        ("NVIDIA A100 80GB PCIe", 80, 81920, set()),
        ("NVIDIA H100 80GB HBM3", 90, 81559, {"h100"}),
        ("NVIDIA H100 PCIe", 90, 81559, {"h100-pcie"}),
        ("NVIDIA H100 NVL", 90, 95830, {"h100-nvl"}),
        ("NVIDIA H20", 90, 97871, {"h20"}),
        ("NVIDIA GH200 480GB", 90, 97871, {"gh200"}),
        ("NVIDIA H200 NVL", 90, 143771, set()),
        ("NVIDIA A30", 80, 24576, {"a30"}),
    ],
)
@pytest.mark.parametrize("backend", ["tensorrt", "trtllm_torch"])
def test_names_of_the_driver_belong_to_these_targets_alone(
    backend: str, name: str, sm: int, mib: int, targets
):
    there = host(Gpu(name, sm, mib << 20, "550.54.15"))
    asked = {one: wanted("1.2.0", engine={"backend": backend, "target": one}, host=there) for one in TARGETS}
    assert {one for one, request in asked.items() if gpus(request)} == targets
    served = {one for one, request in asked.items() if engines.backend(backend).missing(request) is None}
    assert served == targets


def test_a_gpu_of_another_size_or_form_is_another_type():
    for name, sm, memory, target in (
        ("NVIDIA A100-SXM4-40GB", 80, 40 << 30, "a100"),
        ("NVIDIA H100 PCIe", 90, TARGETS["h100"].memory_bytes, "h100"),
        ("NVIDIA H100 NVL", 90, 95830 << 20, "h100"),
    ):
        assert gpus(wanted(engine={"target": target}, host=host(Gpu(name, sm, memory, "550")))) == []


def test_the_key_has_whatever_tactics_depend_on():
    plain = BACKEND.identity(wanted())
    assert plain == {
        "versions": {"tensorrt_llm": "0.16.0", "tensorrt": "10.7.0", "cuda": "12.6.3"},
        "gpu": "NVIDIA H100 80GB HBM3", "sm": 90, "driver": "550.54.15",
    }  # fmt: skip
    other = [
        wanted("0.17.0"),
        wanted(host=host(gpu("NVIDIA H100 80GB HBM3", "h100", driver="560.28.03"))),
        wanted(engine={"target": "h200"}, host=host(gpu("NVIDIA H200", "h200"))),
        wanted(host=host()),
    ]
    assert all(BACKEND.identity(one) != plain for one in other)
    assert "/opt/bin" not in json.dumps(plain)


def test_settings_are_json_and_name_their_table():
    found = BACKEND.settings(wanted(traffic=TRAFFIC))
    assert json.loads(json.dumps(found)) == found
    assert found["table"] == "0.16.0"


def test_notes_begin_with_the_table_that_stands_for_the_version():
    assert BACKEND.notes(wanted("0.17.0"))[0].startswith(
        "engine.toolchain: the options of TensorRT-LLM 0.17.0 are"
    )
    assert not any(note.startswith("engine.toolchain") for note in BACKEND.notes(wanted()))
    assert all(note.startswith("engine.options.") for note in BACKEND.notes(wanted(traffic=TRAFFIC)))

"""Files of pools, and this host as one."""

from pathlib import Path

import pytest

from pipeline.process.host import Gpu, Host
from pipeline.rebuild.host_pools import load_pools, pool_of_host
from pipeline.toolchains.toolchain import Toolchain
from recipes.errors import RecipeError


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "pools.yaml"
    file.write_text(text)
    return file


def test_a_file_of_pools_is_read(tmp_path: Path):
    text = 'version: 1\npools:\n- {name: prod, gpu: h200, driver: "580.1", tensorrt_llm: ["1.2.1"], usd_per_gpu_hour: 3.5}\n'
    (pool,) = load_pools(written(tmp_path, text))
    assert (pool.name, pool.gpu, pool.tensorrt_llm, pool.usd_per_gpu_hour) == (
        "prod",
        "h200",
        ("1.2.1",),
        3.5,
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "version: 1\npools: [{name: a, gpu: h300}]\n",
            "2:19: pools.0.gpu: 'h300' is no GPU type; have a100",
        ),
        (
            "version: 1\npools: [{name: a, cpu: mmx}]\n",
            "2:19: pools.0.cpu: 'mmx' is no vector set; have avx2",
        ),
        ("version: 1\npools: [{name: a, driver_version: x}]\n", "unknown key; did you mean 'driver'"),
        ("version: 1\npools: [{name: a}, {name: a}]\n", "2:1: pools: two are named 'a'; rename one"),
    ],
)
def test_a_mistake_is_told_with_its_place(text: str, said: str, tmp_path: Path):
    with pytest.raises(RecipeError, match=said.replace("(", r"\(")):
        load_pools(written(tmp_path, text))


def test_this_host_is_a_pool_with_what_works_on_it():
    gpus = (Gpu("NVIDIA H200", 90, 1 << 37, "580.159.04"),)
    host = Host(gpus=gpus, cpu="avx512f", cores=2, memory_bytes=1 << 34, tools={"torch": "2.13.0"})
    good = Toolchain(name="a", kind="path", location="/a", versions={"tensorrt_llm": "1.2.1"})
    broken = Toolchain(name="b", kind="path", location="/b", versions={"tensorrt_llm": "1.1"}, problem="no")
    pool = pool_of_host(host, (good, broken))
    assert (pool.gpu, pool.driver, pool.torch, pool.cpu) == ("h200", "580.159.04", "2.13.0", "avx512f")
    assert (pool.tensorrt_llm, pool.tensorrt) == (("1.2.1",), ())

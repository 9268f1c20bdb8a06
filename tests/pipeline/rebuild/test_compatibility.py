"""What this host offers to engines, in the words of published versions."""

import pytest

from artifacts.finding.needs import FACTS
from pipeline.process.host import Gpu, Host
from pipeline.rebuild.compatibility import elsewhere, facts_here
from pipeline.toolchains.toolchain import Toolchain

H100 = Gpu("NVIDIA H100 80GB HBM3", 90, 80 << 30, "560.35.05")


def host(*gpus, cpu="avx512f") -> Host:
    return Host(gpus=gpus, cpu=cpu, cores=2, memory_bytes=1 << 30, tools={"torch": "2.13.0"})


def toolchain(name: str, **versions) -> Toolchain:
    return Toolchain(name=name, kind="path", location="", versions=versions)


def test_every_fact_of_this_host_can_be_asked_for():
    assert facts_here(host(H100)).keys() <= FACTS.keys()


def test_versions_of_all_toolchains_count():
    found = [
        toolchain("old", tensorrt_llm="0.16.0", tensorrt="10.7.0"),
        toolchain("new", tensorrt_llm="1.2.0", tensorrt="10.14.1"),
        toolchain("torch", tensorrt_llm="1.4.0"),
    ]
    here = facts_here(host(H100), found)
    assert here["tensorrt_llm"] == ["0.16.0", "1.2.0", "1.4.0"]
    assert here["tensorrt"] == ["10.14.1", "10.7.0"]


@pytest.mark.parametrize(("gpus", "sm", "driver"), [((), [], None), ((H100, H100), [90, 90], "560.35.05")])
def test_gpus_say_their_capability_and_driver(gpus: tuple[Gpu, ...], sm: list[int], driver: str | None):
    here = facts_here(host(*gpus))
    assert (here["sm"], here["driver"]) == (sm, driver)


def test_vector_sets_include_those_before():
    assert facts_here(host())["cpu"] == ("avx2", "avx512f")
    assert facts_here(host(cpu="aarch64"))["cpu"] == ("aarch64",)


def test_a_runtime_or_driver_that_is_asked_for_takes_the_place_of_this_hosts_alone():
    here = facts_here(host(H100), [toolchain("old", tensorrt_llm="0.16.0")])
    counts = elsewhere(here, {"runtime": {"tensorrt_llm": "1.2.1"}})
    assert counts == {"cpu": here["cpu"], "gpus": here["gpus"], "sm": [90], "driver": "560.35.05"}
    assert "driver" not in elsewhere(here, {"driver": "570.86.10"})
    assert elsewhere(here, {"driver": "570.86.10"})["tensorrt_llm"] == ["0.16.0"]
    assert elsewhere(here, {"gpu": "h200"}) == {}
    assert elsewhere(here, {"tp": 2}) == here


def test_a_host_without_gpus_is_not_the_one_that_somebody_asks_about_by_driver_or_tensorrt():
    here = facts_here(host())
    assert elsewhere(here, {"runtime": {"tensorrt_llm": "1.2.1"}}) == {}
    assert elsewhere(here, {"driver": "570.86.10"}) == {}
    assert elsewhere(here, {"runtime": {"torch": "2.13.0"}})["gpus"] == []

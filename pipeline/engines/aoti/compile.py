"""From a stage module to an AOTInductor package: export with dynamic sizes, compile, package."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
import torch._inductor
import torch.distributed as dist
from torch import Tensor
from torch._inductor.package.package import package_aoti
from torch.export import Dim, ExportedProgram

from pipeline.engines.aoti.arch import Arch
from pipeline.engines.aoti.decoder import Stage
from pipeline.engines.aoti.gemv_tuning import Tuning, use_faster_ways
from pipeline.engines.aoti.sizes import Limits, new_caches


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is compiled, and how."""

    arch: Arch
    limits: Limits
    dtype: torch.dtype
    tuning: Tuning | None
    """Where the times of ways to multiply are kept; None: take the usual ones."""
    threads: int
    ways: dict[str, str] = field(default_factory=dict)
    """Linear layer -> the way that was found faster; compiling fills it."""


@contextmanager
def fake_group(tp: int) -> Iterator[None]:
    """Lets collectives be exported in one process: a group of `tp` ranks whose calls do nothing."""
    if tp == 1:
        yield
        return
    from torch.testing._internal.distributed.fake_pg import FakeStore  # registers the backend "fake"

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=tp)
    try:
        yield
    finally:
        dist.destroy_process_group()


def compile_graph(plan: Plan, stage: int, tensors: Mapping[str, Tensor], graph: str) -> list[str]:
    """Compiles one graph of a stage, without weights; returns the files to package."""
    program = _export(plan, stage, tensors, single=graph == "single")
    args = program.example_inputs[0]
    files = torch._inductor.aot_compile(
        program.module(check_guards=False), args, options=inductor_options(plan)
    )
    return cast("list[str]", files)


def package(graphs: Mapping[str, list[str]], target: Path) -> None:
    """Packages a stage's compiled graphs; takes their files out of the compiler's cache."""
    package_aoti(str(target), {name: [*files] for name, files in graphs.items()})
    for files in graphs.values():
        for directory in {Path(file).parent for file in files}:
            shutil.rmtree(directory)


def _export(plan: Plan, stage: int, tensors: Mapping[str, Tensor], *, single: bool) -> ExportedProgram:
    limits = plan.limits
    # Without memory: the weights are assigned below, not copied into the module.
    with torch.device("meta"):
        module = Stage(plan.arch, plan.dtype, stage, limits.capacity, single=single)
    names = module.state_dict().keys()
    module.load_state_dict({name: tensors[name] for name in names}, assign=True)
    if single and plan.tuning is not None:
        plan.ways.update(use_faster_ways(module, plan.tuning, kernel_options(plan)))
    # Export takes sizes of 0 and 1 for constants, so the examples of sizes that vary are larger.
    batch, time, length = (1, 1, 4) if single else (min(2, limits.max_batch_size), 3, 4)
    shape = (batch, time) if stage == 0 else (batch, time, plan.arch.hidden_size)
    x = torch.zeros(shape, dtype=torch.int64 if stage == 0 else plan.dtype)
    positions = torch.arange(time).repeat(batch, 1)
    caches = new_caches(plan.arch, plan.dtype, batch, limits.capacity)
    rows = torch.arange(1 if single else 2)
    args = (x, positions, torch.arange(length), rows, caches)
    return torch.export.export(
        module, args, dynamic_shapes=_dynamic(plan, stage, single=single), strict=False
    )


def _dynamic(plan: Plan, stage: int, *, single: bool) -> tuple[Any, ...]:
    limits, num_caches = plan.limits, 2 * plan.arch.stage_layers
    length = {0: Dim("length", min=1, max=limits.max_seq_len)}
    if single:
        return (None, None, length, None, [None] * num_caches)
    time = Dim("time", min=1, max=limits.max_seq_len)
    # A batch of at most one has no size that varies.
    batch = {0: Dim("batch", min=1, max=limits.max_batch_size)} if limits.max_batch_size > 1 else {}
    rows = (
        {0: Dim("rows", min=1, max=limits.max_batch_size * limits.max_seq_len)}
        if stage == plan.arch.pp - 1
        else {}
    )
    return ({**batch, 1: time}, {**batch, 1: time}, length, rows, [batch] * num_caches)


def inductor_options(plan: Plan) -> dict[str, Any]:
    """Inductor's settings for a package: no weights in it, quick to compile."""
    return {
        **kernel_options(plan),
        "aot_inductor.package": True,
        "aot_inductor.package_constants_in_so": False,  # weights stay in the rank files
        "aot_inductor.compile_wrapper_opt_level": "O0",
        "aot_inductor.enable_line_tables": False,
        "aot_inductor.enable_frame_pointer": False,
        "aot_inductor.precompile_headers": False,
        # Scales and offsets of one element stay data: ranks and stages that share the code differ in them.
        "always_keep_tensor_constants": True,
    }


def kernel_options(plan: Plan) -> dict[str, Any]:
    """Inductor's settings that shape the kernels."""
    return {
        "cpp.threads": plan.threads,
        "cpp.enable_floating_point_contract_flag": "fast",
        # Whatever several outputs read is computed once: without this, the norm before a linear layer is
        # computed again for every output channel of the fused product.
        "realize_reads_threshold": 1,
        # The CPU says what it can. Inductor would compile a program to see, and take a damaged file in its
        # cache, or a host busy for a minute, for a CPU without vectors (torch 2.13, `cpu_vec_isa.py`).
        "cpp.vec_isa_ok": True,
        # Headers would be read from an unverified directory in /tmp that is never removed.
        "cpp_cache_precompile_headers": False,
    }

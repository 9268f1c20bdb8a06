"""What the lines of a build say; the texts are of TensorRT-LLM's and TensorRT's own messages."""

from pipeline.engines.tensorrt.build_log import BuildLog

STAMP = "[08/27/2025-08:22:30]"
LINES = (
    "[TensorRT-LLM] TensorRT-LLM version: 0.20.0",
    f"{STAMP} [TRT-LLM] [I] Total time of constructing network from module object 2.3651156425476074 seconds",
    f"{STAMP} [TRT-LLM] [I] Total time to initialize the weights in network Unnamed Network 0: 00:01:05",
    f"{STAMP} [TRT] [I] Total Activation Memory: 503420928 bytes",
    f"{STAMP} [TRT] [I] Engine generation completed in 5.37531 seconds.",
    f"{STAMP} [TRT] [I] [MemUsageStats] Peak memory usage of TRT CPU/GPU memory allocators: CPU 0 MiB, GPU 385 MiB",
    f"{STAMP} [TRT-LLM] [I] Total time of building Unnamed Network 0: 00:00:08",
    f"{STAMP} [TRT] [I] Serialized 12 timing cache entries",
    f"{STAMP} [TRT-LLM] [I] Build phase peak memory: 6978.95 MB, children: 12049.21 MB",
    f"{STAMP} [TRT-LLM] [I] Engine serialized. Total time: 00:00:02",
    f"{STAMP} [TRT-LLM] [I] Total time of building all engines: 01:00:11",
)


def heard(*lines: str) -> BuildLog:
    log = BuildLog()
    for line in lines:
        log.on_line(line)
    return log


def test_phases_memory_and_the_version_are_read() -> None:
    report = heard(*LINES).report()
    assert report["version"] == "0.20.0"
    assert report["phases_s"] == {
        "network": [2.3651156425476074], "weights": [65.0], "kernels": [5.37531], "engine": [8.0],
        "serialization": [2.0], "all": [3611.0],
    }  # fmt: skip
    assert report["memory"] == {
        "activation_bytes": 503420928, "peak_gpu_bytes": 385 << 20, "peak_host_bytes": round(6978.95 * 2**20),
    }  # fmt: skip
    assert report["timing_cache_entries"] == 12
    assert (report["warnings"], report["errors"]) == ({}, {})


def test_every_rank_adds_its_times_and_the_largest_memory_counts() -> None:
    log = heard(*LINES, *(line.replace("503420928", "603420928") for line in LINES))
    assert len(log.report()["phases_s"]["engine"]) == 2
    assert log.memory["activation_bytes"] == 603420928
    assert log.marks == 8


def test_kernels_left_out_are_counted_with_the_memory_they_lacked() -> None:
    log = heard(
        f"{STAMP} [TRT] [W] UNSUPPORTED_STATESkipping tactic 4 due to insufficient memory on requested size of "
        "66048 detected for tactic 0x000000000000001f.",
        f"{STAMP} [TRT] [W] UNSUPPORTED_STATE: Skipping tactic 28 due to insufficient memory on requested size of "
        "2833252352 detected for tactic 0x0000000204040736.",
    )
    assert log.report()["skipped_tactics"] == {"count": 2, "largest_bytes": 2833252352}
    assert log.report()["warnings"] == {}


def test_warnings_and_errors_are_kept_once_with_their_number() -> None:
    log = heard(
        *[f"{STAMP} [TRT-LLM] [W] Overriding paged_state to False"] * 2, f"{STAMP} [TRT] [E] Error Code 2"
    )
    assert log.report()["warnings"] == {"Overriding paged_state to False": 2}
    assert log.report()["errors"] == {"Error Code 2": 1}
    assert not log.out_of_memory


def test_lines_of_mpi_ranks_are_read_too() -> None:
    assert heard(f"{STAMP} [TRT-LLM] [RANK 1] [W] odd").report()["warnings"] == {"odd": 1}


def test_memory_that_runs_out_is_noticed_in_any_line() -> None:
    assert heard("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB").out_of_memory
    assert heard(f"{STAMP} [TRT] [E] Error Code 2: OutOfMemory (Requested size was 1 bytes.)").out_of_memory

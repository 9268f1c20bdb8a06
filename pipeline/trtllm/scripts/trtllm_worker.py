"""Loads an engine with TensorRT-LLM and answers calls: `python worker.py JOB.json`.

Run by a toolchain's own Python (3.10 or newer), so it stands alone. Calls come as JSON lines of a file that
its caller appends to, answers go as JSON lines into another: pipes and sockets do not reach into every
container. Arrays pass as .npy and .npz files. It ends when its caller unlocks `alive`, that is, when it dies.

The names used of tensorrt_llm were read in its public sources (0.16.0, 1.0.0rc4, 1.1.0rc6 and one of 1.3);
nothing here was executed against the real library.
"""

import asyncio
import dataclasses
import fcntl
import importlib
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

POLL_S = 0.01
WATCH_S = 1.0

ENGINE_PLACES = ("tensorrt_llm._tensorrt_engine",)
EARLY_ENGINE_PLACES = ("tensorrt_llm.llmapi", "tensorrt_llm.hlapi", "tensorrt_llm")
"""Where the LLM class of built engines is, from 1.0 on and before: `tensorrt_llm.LLM` became PyTorch's."""
HELPER_PLACES = ("tensorrt_llm.llmapi", "tensorrt_llm.hlapi")
UPDATE_PLACES = ("tensorrt_llm.llmapi.llm_args", "tensorrt_llm.llmapi.llm_utils")
"""Where the function is that turns a YAML file's mappings into configuration objects."""

Answer = Callable[[dict[str, Any]], None]
Array = Any
"""Of NumPy."""

NO_END = -1
"""End of sequence that no token is, as trtllm-bench sets it."""


def found(name: str, places: Sequence[str]) -> Any:
    """The first object of that name in the given modules."""
    for place in places:
        try:
            module = importlib.import_module(place)
        except ModuleNotFoundError:
            continue
        # A module of that name may be there without the class: it moved between versions.
        if hasattr(module, name):
            return getattr(module, name)
    raise ImportError(f"this TensorRT-LLM has no {name} in any of {', '.join(places)}")


def check_version(expected: str) -> None:
    """Raises RuntimeError unless the library has the version that the engine was built with."""
    version = importlib.import_module("tensorrt_llm").__version__
    if version != expected:
        raise RuntimeError(f"tensorrt_llm is {version}, the engine was built with {expected}")


def load(job: Mapping[str, Any]) -> Any:
    """The LLM object of a built engine (`kind` engine) or of a checkpoint with options (pytorch)."""
    check_version(job["version"])
    if job["kind"] == "engine":
        cache = found("KvCacheConfig", HELPER_PLACES)
        windows = {"max_attention_window": job["attention_windows"]} if job["attention_windows"] else {}
        fraction = job["kv_cache_fraction"]
        # No reuse, for the reason below.
        config = cache(enable_block_reuse=False, free_gpu_memory_fraction=fraction, **windows)
        early = job["version"].startswith("0.")
        llm = found("LLM", EARLY_ENGINE_PLACES if early else ENGINE_PLACES)
        more = lookahead(job["lookahead"]) if job.get("lookahead") else {}
        more |= proposing("MedusaDecodingConfig", job["medusa"]) if job.get("medusa") else {}
        more |= proposing("EagleDecodingConfig", job["eagle"]) if job.get("eagle") else {}
        # Tokens go in and tokens come out: no tokenizer is needed.
        return llm(model=job["model"], skip_tokenizer_init=True, kv_cache_config=config, **more)
    options = dict(job["options"])
    # A reused block has no logits: context logits need every prompt computed.
    options["kv_cache_config"] = {**options.get("kv_cache_config", {}), "enable_block_reuse": False}
    more = found("update_llm_args_with_extra_dict", UPDATE_PLACES)({}, options)
    return found("LLM", ("tensorrt_llm",))(model=job["model"], skip_tokenizer_init=True, **more)


def lookahead(sizes: Sequence[int]) -> dict[str, Any]:
    """How an engine that was built for lookahead decoding proposes: window, n-gram, verification set."""
    names = ("max_window_size", "max_ngram_size", "max_verification_set_size")
    config = found("LookaheadDecodingConfig", HELPER_PLACES)
    return {"speculative_config": config(**dict(zip(names, sizes, strict=True)))}


def proposing(name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The tree of proposals of an engine with heads, under the field names of this version."""
    config = found(name, HELPER_PLACES)
    # A pydantic model in some versions, a dataclass in others.
    names = getattr(config, "model_fields", None) or {field.name for field in dataclasses.fields(config)}
    return {"speculative_config": config(**{name: value for name, value in fields.items() if name in names})}


def sampling(num_new: int, how: Mapping[str, Any], *, context_logits: bool = False) -> Any:
    """SamplingParams under the field names of this version; `how` is temperature, seed and stop, or empty."""
    kind = importlib.import_module("tensorrt_llm").SamplingParams
    names = {field.name for field in dataclasses.fields(kind)}
    stop = how.get("stop") or [NO_END]
    fields: dict[str, Any] = {"max_tokens" if "max_tokens" in names else "max_new_tokens": num_new}
    # One token is the end and others are stops; without any, NO_END lets answers reach their length.
    fields |= {"end_id": stop[0], "pad_id": stop[0]}
    if len(stop) > 1:
        fields["stop_token_ids"] = stop[1:]
    if how.get("temperature"):
        fields |= {"temperature": how["temperature"], "top_p": 1.0}
        fields["seed" if "seed" in names else "random_seed"] = how["seed"]
    else:
        fields["top_k"] = 1
    return kind(return_context_logits=context_logits, **fields)


def score(llm: Any, event: Answer, params: Mapping[str, Any]) -> dict[str, Any]:
    """Writes float32 `targets` (B, T), `indices` (B, T, K) and int64 `top1` (B, T) to the .npz file `out`.

    `tokens` (B, T), `targets` (B, T) and `indices` (B, T, K) are .npy files of int64.
    """
    tokens, targets, indices = (np.load(params[name]) for name in ("tokens", "targets", "indices"))
    one_token = sampling(1, {}, context_logits=True)
    answers = llm.generate([row.tolist() for row in tokens], one_token, use_tqdm=False)
    rows = [
        scored(answer.context_logits, targets[row], indices[row], params["vocab_size"])
        for row, answer in enumerate(answers)
    ]
    arrays: dict[str, Any] = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    np.savez(params["out"], **arrays)
    return {"rows": len(rows)}


def scored(logits: Any, targets: Array, indices: Array, vocab_size: int) -> dict[str, Array]:
    """What one sequence's context logits (T, V or more) say about targets (T,) and indices (T, K)."""
    if logits is None:
        raise RuntimeError("context logits were not gathered; build the engine with gather_context_logits")
    if len(logits) != len(targets):
        raise RuntimeError(
            f"context logits have {len(logits)} rows for {len(targets)} tokens; "
            "a reused or chunked prompt has lost some"
        )
    # Columns beyond the vocabulary are padding, and would have a share of the softmax.
    logprobs = torch.as_tensor(logits)[:, :vocab_size].float().cpu().log_softmax(-1)
    return {
        "targets": logprobs.gather(1, torch.from_numpy(targets)[:, None])[:, 0].numpy(),
        "indices": logprobs.gather(1, torch.from_numpy(indices)).numpy(),
        "top1": logprobs.argmax(-1).numpy(),
    }


async def stream(llm: Any, prompt: list[int], params: Any, on_tokens: Callable[[list[int]], None]) -> None:
    """Continues one prompt; `on_tokens` gets the new tokens of every step."""
    count = 0
    async for answer in llm.generate_async(prompt, params, streaming=True):
        ids = list(answer.outputs[0].token_ids)  # all so far, not the newest alone
        on_tokens(ids[count:])
        count = len(ids)


async def together(
    llm: Any, prompts: Sequence[list[int]], params: Sequence[Any], on_tokens: Callable[[int, list[int]], None]
) -> None:
    """Continues all prompts at once; `on_tokens` gets the request's number and its new tokens."""
    pairs = enumerate(zip(prompts, params, strict=True))
    await asyncio.gather(
        *(
            stream(llm, prompt, sampling_params, partial(on_tokens, number))
            for number, (prompt, sampling_params) in pairs
        )
    )


def generate(llm: Any, event: Answer, params: Mapping[str, Any]) -> dict[str, Any]:
    """New tokens of each prompt, at most its `num_new`; each step's tokens are sent as they come."""
    texts: list[list[int]] = [[] for _ in params["prompts"]]

    def on_tokens(number: int, new: list[int]) -> None:
        texts[number] += new
        event({"request": number, "tokens": new})

    samplings = [sampling(count, params) for count in params["num_new"]]
    asyncio.run(together(llm, params["prompts"], samplings, on_tokens))
    return {"texts": texts}


def measure(llm: Any, event: Answer, params: Mapping[str, Any]) -> dict[str, Any]:
    """When each token of greedy answers came, in seconds from the start: per request, one time a token."""
    times: list[list[float]] = [[] for _ in params["prompts"]]
    start = time.perf_counter()

    def on_tokens(number: int, new: list[int]) -> None:
        # Tokens of one step come together; `figures.spread` divides the time among them.
        times[number] += [time.perf_counter() - start] * len(new)

    samplings = [sampling(params["num_new"], {}) for _ in times]
    asyncio.run(together(llm, params["prompts"], samplings, on_tokens))
    return {"times": times, "total_s": time.perf_counter() - start}


CALLS: Mapping[str, Callable[[Any, Answer, Mapping[str, Any]], dict[str, Any]]] = {
    "score": score, "generate": generate, "measure": measure,
}  # fmt: skip


def watch(alive: str) -> None:
    """Ends this process when the lock on `alive` is free: the caller holds it while it lives."""
    with Path(alive).open() as file:
        while True:
            time.sleep(WATCH_S)
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # refused while the caller holds it
            except BlockingIOError:
                continue
            os._exit(1)


def requests(file: str) -> Iterator[dict[str, Any]]:
    """Yields the lines of a growing file, each once it is complete."""
    pending = ""
    with Path(file).open() as source:
        while True:
            piece = source.readline()  # half a line where the caller is writing
            pending += piece
            if pending.endswith("\n"):
                yield json.loads(pending)
                pending = ""
            elif not piece:
                time.sleep(POLL_S)


def serve(job: Mapping[str, Any], answer: Answer) -> None:
    """Loads the engine, reports that, and answers calls until one is `stop`."""
    llm = load(job)
    answer({"result": {}})
    for request in requests(job["requests"]):
        if request["call"] == "stop":
            break
        result = CALLS[request["call"]](llm, lambda event: answer({"event": event}), request["params"])
        answer({"result": result})
    getattr(llm, "shutdown", lambda: None)()  # not every version has it


def main() -> None:
    """Runs the job; a failure is answered in one line, with its traceback on standard error."""
    job = json.loads(Path(sys.argv[1]).read_text())
    threading.Thread(target=watch, args=(job["alive"],), daemon=True).start()
    with Path(job["answers"]).open("a", buffering=1) as out:  # by lines: the caller is waiting

        def answer(message: dict[str, Any]) -> None:
            out.write(json.dumps(message) + "\n")

        try:
            serve(job, answer)
        except Exception as exc:  # noqa: BLE001 every failure goes to the caller
            traceback.print_exc()
            sys.stderr.flush()
            answer({"error": f"{type(exc).__name__}: {exc}"})
            out.flush()
            os._exit(1)  # ranks that wait for a dead one would keep this process


if __name__ == "__main__":
    main()

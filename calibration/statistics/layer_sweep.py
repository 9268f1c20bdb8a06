"""One pass over the calibration set, layer by layer."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import torch

from calibration.statistics.batches import Batch
from calibration.statistics.guards import examine, examine_experts
from calibration.statistics.hidden import HiddenStates
from calibration.statistics.recorder import Recorder
from calibration.statistics.resume import Finished, LayerDetails, Partial
from calibration.statistics.skeleton import EMBEDDING, Skeleton
from calibration.statistics.weight_reading import Load, Reader
from calibration.step_progress import Progress


@dataclass(slots=True, kw_only=True)
class Sweep:
    """One pass over the calibration set."""

    skeleton: Skeleton
    reader: Reader
    hidden: HiddenStates
    batches: list[Batch]
    partial: Partial
    search: bool
    """Whether AWQ's search is recorded."""
    progress: Progress
    every_expert: bool = False
    """Whether an expert without tokens ends the pass, because its ranges will be needed."""
    finished: list[Finished] = field(init=False, default_factory=list)
    """Layers whose outputs were not saved: they are committed with the next layer that is."""
    done: int = field(init=False, default=0)
    """Tokens times layers done."""

    @property
    def num_tokens(self) -> int:
        """Tokens of the set, without padding."""
        return sum(batch.num_valid for batch in self.batches)

    @property
    def total(self) -> int:
        """Tokens times layers."""
        return self.num_tokens * len(self.skeleton.layers)

    def run(self, after: Callable[[], None]) -> None:
        """Run the unfinished layers; call `after` after each one.

        CheckpointError for invalid weights, ActivationsUnusable for unusable statistics.
        """
        first, layers = len(self.partial.layers), len(self.skeleton.layers)
        self.done = first * self.num_tokens
        self.progress(self.done, self.total, "tokens")
        with torch.no_grad():
            next_load = self._load(first) if first < layers else None
            if not self.partial.has_inputs:
                self._embed()
            for layer in range(first, layers):
                assert next_load is not None
                load = next_load.result()
                # Read the next layer's weights while this one computes.
                next_load = self._load(layer + 1) if layer + 1 < layers else None
                self._layer(layer, load)
                self.reader.release(load)
                after()
        self.hidden.settle()

    def _load(self, layer: int) -> "Future[Load]":
        return self.reader.load(self.skeleton.names(layer))

    def _embed(self) -> None:
        """Makes the first layer's inputs; only the table of the embedding is read."""
        load = self.reader.load([EMBEDDING]).result()
        table = load.tensors[EMBEDDING].to(self.skeleton.dtype)
        for batch in self.batches:
            tokens_BT = batch.tokens_BT.to(self.skeleton.device)
            self.hidden.put(0, batch.number, self.skeleton.embed(tokens_BT, table))
        if self.hidden.saving:
            self.hidden.commit(self.partial.begin)
        del load, table
        if self.skeleton.device.type == "cuda":
            torch.cuda.empty_cache()  # the largest tensor there will be; nothing else fits its place

    def _layer(self, number: int, load: Load) -> None:
        """Runs all batches through one layer and commits what was recorded."""
        started, prefix = time.monotonic(), f"model.layers.{number}."
        last = number + 1 == len(self.skeleton.layers)
        self.hidden.begin(number, last=last)
        self.skeleton.dress(number, load.tensors)
        linears, experts = self.skeleton.linears(number), self.skeleton.experts(number)
        recorder = Recorder(linears, experts, prefix, search=self.search)
        for batch, hidden_BTH in zip(self.batches, self.hidden.inputs(number), strict=True):
            recorder.begin(batch)
            out_BTH = self._run(number, batch, hidden_BTH, recorder)
            self.hidden.put(number + 1, batch.number, out_BTH)
            self.done += batch.num_valid
            self.progress(self.done, self.total, "tokens")
        # None: what runs from here on is not recorded.
        recorder.begin(None)
        recorder.close()
        # Waits for the device: the layer's weights may be released after this.
        tensors = {name: tensor.cpu() for name, tensor in recorder.tensors().items()}
        warnings = examine(tensors, list(recorder.linears), optional=recorder.experts)
        warnings += examine_experts(recorder.expert_tokens(), required=self.every_expert)
        # Drops the references to the weights, whose buffer the next load may overwrite.
        self.skeleton.undress(number)
        details: LayerDetails = {"seconds": time.monotonic() - started, "warnings": warnings}
        self.finished.append(Finished(number, tensors, details))
        if self.hidden.saving or last:
            # Emptied before the commit is scheduled, so that the next layer is not added to this list.
            finished, self.finished = self.finished, []
            self.hidden.commit(lambda: self.partial.commit(finished))

    def _run(self, number: int, batch: Batch, hidden_BTH: torch.Tensor, recorder: Recorder) -> torch.Tensor:
        """Outputs [B, T, H] of a layer, called with the arguments that the whole model would pass."""
        arguments: dict[str, Any] = dict(self.skeleton.context(*batch.tokens_BT.shape)[number])
        arguments["past_key_values"] = recorder  # shows keys after the rotary embedding, keeps nothing
        out_BTH: torch.Tensor = self.skeleton.layers[number](hidden_BTH, **arguments)
        return out_BTH

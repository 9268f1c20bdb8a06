"""The tensors of the five models of Triton's TensorRT-LLM backend, as tables; pure.

Names, types and shapes are those that the backend and its Python models look up (tensorrtllm_backend,
all_models/inflight_batcher_llm, 2024-07 to 2025-05: `InputFieldsNames`, `_llm_outputs`, `_preproc_outputs`).
Left out, because no engine of ours has them: inputs of multimodal, encoder-decoder and LoRA requests, guided
decoding, KV retention. Outputs that a version does not know are declared all the same: they are only produced
on request, and the Python models of some versions request each of them by name.
A row is: name, type, dimensions, then `ragged`, `optional`, `scalar` (sent with dimension 1, seen without).
`logits` stands for the type of the engine's logits, `@min` and `@seed` for names that changed.
"""

from dataclasses import dataclass
from typing import Literal

LogitsType = Literal["float16", "float32"]

TYPES = {
    "int32": "TYPE_INT32", "int64": "TYPE_INT64", "uint64": "TYPE_UINT64", "float32": "TYPE_FP32",
    "float16": "TYPE_FP16", "bool": "TYPE_BOOL", "string": "TYPE_STRING",
}  # fmt: skip

NAMES_CHANGED = (0, 18)
"""Release since which `min_length` and `random_seed` are `min_tokens` and `seed`. Read in trees of about
0.17 (old) and 0.20 (new); the release between is a guess, so the start script asks the container."""

TYPED_LOGITS = (0, 17)
"""Release since which logits have the engine's type; before it they are declared float32."""

SAMPLING = """
beam_width int32 1 optional
temperature float32 1 optional
repetition_penalty float32 1 optional
@min int32 1 optional
presence_penalty float32 1 optional
frequency_penalty float32 1 optional
@seed uint64 1 optional
num_return_sequences int32 1 optional
return_log_probs bool 1 optional
return_context_logits bool 1 optional
return_generation_logits bool 1 optional
exclude_input_in_output bool 1 optional
end_id int32 1 optional
pad_id int32 1 optional
"""
"""Inputs that every model which takes requests has under the same name."""

LLM_INPUTS = """
input_ids int32 -1 ragged optional
input_lengths int32 1 scalar
request_output_len int32 1 scalar
draft_input_ids int32 -1 ragged optional
decoder_input_ids int32 -1 ragged optional
decoder_input_lengths int32 1 scalar optional
draft_logits logits -1,-1 ragged optional
draft_acceptance_threshold float32 1 scalar optional
stop_words_list int32 2,-1 ragged optional
bad_words_list int32 2,-1 ragged optional
embedding_bias float32 -1 ragged optional
runtime_top_k int32 1 scalar optional
runtime_top_p float32 1 scalar optional
runtime_top_p_min float32 1 scalar optional
runtime_top_p_decay float32 1 scalar optional
runtime_top_p_reset_ids int32 1 scalar optional
len_penalty float32 1 scalar optional
early_stopping bool 1 scalar optional
beam_search_diversity_rate float32 1 scalar optional
stop bool 1 scalar optional
streaming bool 1 scalar optional
"""
"""Of `tensorrt_llm`, besides SAMPLING."""

LLM_OUTPUTS = """
output_ids int32 -1,-1
sequence_length int32 -1
"""

ANSWERS = """
cum_log_probs float32 -1
output_log_probs float32 -1,-1
context_logits logits -1,-1
generation_logits logits -1,-1,-1
batch_index int32 1
sequence_index int32 1
"""
"""Outputs of `tensorrt_llm` that `ensemble` and `tensorrt_llm_bls` pass on."""

STATISTICS = """
kv_cache_alloc_new_blocks int32 1
kv_cache_reused_blocks int32 1
kv_cache_alloc_total_blocks int32 1
arrival_time_ns int64 1
first_scheduled_time_ns int64 1
first_token_time_ns int64 1
last_token_time_ns int64 1
acceptance_rate float32 1
total_accepted_draft_tokens int32 1
total_draft_tokens int32 1
num_input_tokens int32 1
num_output_tokens int32 1
"""
"""Outputs of `tensorrt_llm` that `tensorrt_llm_bls` asks for and passes on."""

TEXT_INPUTS = """
text_input string 1
max_tokens int32 1
bad_words string -1 optional
stop_words string -1 optional
top_k int32 1 optional
top_p float32 1 optional
length_penalty float32 1 optional
stream bool 1 optional
embedding_bias_words string -1 optional
embedding_bias_weights float32 -1 optional
"""
"""Of `ensemble` and `tensorrt_llm_bls`, besides SAMPLING."""

DRAFT_INPUTS = """
num_draft_tokens int32 1 optional
use_draft_logits bool 1 scalar optional
"""
"""Of `tensorrt_llm_bls` besides."""

TEXT_OUTPUTS = """
text_output string -1
"""

PREPROCESSING_INPUTS = """
QUERY string 1
DECODER_QUERY string 1 optional
REQUEST_OUTPUT_LEN int32 1
BAD_WORDS_DICT string -1 optional
STOP_WORDS_DICT string -1 optional
EMBEDDING_BIAS_WORDS string -1 optional
EMBEDDING_BIAS_WEIGHTS float32 -1 optional
END_ID int32 1 optional
PAD_ID int32 1 optional
PROMPT_TABLE_EXTRA_ID uint64 1 optional
"""

PREPROCESSING_OUTPUTS = """
INPUT_ID int32 -1
REQUEST_INPUT_LEN int32 1
DECODER_INPUT_ID int32 -1
REQUEST_DECODER_INPUT_LEN int32 1
BAD_WORDS_IDS int32 2,-1
STOP_WORDS_IDS int32 2,-1
EMBEDDING_BIAS float32 -1
REQUEST_OUTPUT_LEN int32 -1
OUT_END_ID int32 1
OUT_PAD_ID int32 1
OUT_PROMPT_TABLE_EXTRA_IDS uint64 -1
PIXEL_VALUES float16 -1,-1,-1,-1
IMAGE_SIZES int64 -1,2
IS_VIDEO_INPUT bool 1
ATTENTION_MASK int64 -1
IMAGE_GRID_THW int64 3
VISION_INPUT_ID int32 -1
"""
"""The last six are never produced for text; its model.py asks for their types when it is loaded."""

POSTPROCESSING_INPUTS = """
TOKENS_BATCH int32 -1,-1
SEQUENCE_LENGTH int32 -1
"""

POSTPROCESSING_OUTPUTS = """
OUTPUT string -1
"""

LLMAPI_INPUTS = """
text_input string -1
streaming bool 1 optional
sampling_param_best_of int32 1 optional
sampling_param_temperature float32 1 optional
sampling_param_top_k int32 1 optional
sampling_param_top_p float32 1 optional
sampling_param_frequency_penalty float32 1 optional
sampling_param_presence_penalty float32 1 optional
sampling_param_max_tokens int32 1 optional
sampling_param_stop string -1 optional
sampling_param_seed uint64 1 optional
sampling_param_exclude_input_from_output bool 1 optional
sampling_param_return_perf_metrics bool 1 optional
return_finish_reason bool 1 optional
return_stop_reason bool 1 optional
return_cumulative_logprob bool 1 optional
stop bool 1 optional
"""
"""Of `tensorrt_llm` in the LLM-API variant (TensorRT-LLM, triton_backend/all_models/llmapi, 2025)."""

LLMAPI_OUTPUTS = """
text_output string -1
finish_reason string -1
stop_reason string -1
cumulative_logprob float32 -1
kv_cache_reused_block int32 -1
kv_cache_hit_rate float32 -1
kv_cache_alloc_new_blocks int32 -1
kv_cache_alloc_total_blocks int32 -1
kv_cache_missed_block int32 -1
arrival_time_ns int64 1
first_scheduled_time_ns int64 1
first_token_time_ns int64 1
last_token_time_ns int64 1
acceptance_rate float32 1
total_accepted_draft_tokens int32 1
total_draft_tokens int32 1
"""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output of a model."""

    name: str
    data_type: str
    """As Triton's schema spells it."""
    dims: tuple[int, ...]
    ragged: bool = False
    """Requests of one batch may have different lengths."""
    optional: bool = False
    scalar: bool = False
    """The model sees it without its dimension."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """What of the interface depends on the version and on the engine."""

    min_tokens: str
    seed: str
    logits: LogitsType

    def rows(self, *tables: str, scalars: bool = False) -> list[Tensor]:
        """The tensors of some tables; `scalars`: those with dimension 1 are seen without it."""
        lines = [line.split() for table in tables for line in table.split("\n") if line]
        return [self._tensor(line, scalars=scalars) for line in lines]

    def _tensor(self, line: list[str], *, scalars: bool) -> Tensor:
        name, kind, dims, *flags = line
        name = {"@min": self.min_tokens, "@seed": self.seed}.get(name, name)
        return Tensor(
            name,
            # a misspelt type in a table is a KeyError here, before any file is written
            TYPES[self.logits if kind == "logits" else kind],
            tuple(int(dim) for dim in dims.split(",")),
            ragged="ragged" in flags,
            optional="optional" in flags,
            # SAMPLING is shared: the engine's model sees scalars, the Python models vectors
            scalar="scalar" in flags or (scalars and dims == "1"),
        )


def dialect(release: tuple[int, int], logits: LogitsType) -> Dialect:
    """The interface of a release of TensorRT-LLM, for an engine with logits of this type."""
    # serve.sh asks the container for both names, so a wrong guess is refused at the start
    old = release < NAMES_CHANGED
    return Dialect("min_length" if old else "min_tokens", "random_seed" if old else "seed", logits)

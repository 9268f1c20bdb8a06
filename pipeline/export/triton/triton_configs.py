"""The configuration of each Triton model as a message of Triton's schema, so that no field is misspelt."""

from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as schema

from pipeline.export.triton import triton_tensors
from pipeline.export.triton.triton_tensors import Dialect, Tensor
from pipeline.export.triton.triton_values import Values

LLM, DRAFT_LLM, BLS, ENSEMBLE = "tensorrt_llm", "tensorrt_llm_draft", "tensorrt_llm_bls", "ensemble"
PREPROCESSING, POSTPROCESSING = "preprocessing", "postprocessing"

WORKER = "/opt/tritonserver/backends/tensorrtllm/trtllmExecutorWorker"
"""Where NVIDIA's container has the program that ranks run in orchestrator mode."""

ModelConfig = Any
"""`model_config_pb2.ModelConfig`; the package has no type hints."""


def to_text(config: ModelConfig) -> str:
    """The configuration as Triton reads it from `config.pbtxt`."""
    text: str = text_format.MessageToString(config)
    return text


def llm(values: Values, dialect: Dialect) -> ModelConfig:
    """`tensorrt_llm`: the engine, in the C++ backend."""
    config = _create_model(values.name, "tensorrtllm", values.max_batch_size)
    config.model_transaction_policy.decoupled = values.decoupled
    config.dynamic_batching.preferred_batch_size.append(values.max_batch_size)
    config.dynamic_batching.max_queue_delay_microseconds = values.queue_delay_us
    config.dynamic_batching.default_queue_policy.max_queue_size = values.queue_size
    inputs = [*dialect.rows(triton_tensors.LLM_INPUTS), *dialect.rows(triton_tensors.SAMPLING, scalars=True)]
    outputs = dialect.rows(triton_tensors.LLM_OUTPUTS, triton_tensors.ANSWERS, triton_tensors.STATISTICS)
    _add_tensors(config, inputs, outputs)
    _add_instances(config, 1)
    _add_parameters(
        config, {"FORCE_CPU_ONLY_INPUT_TENSORS": "no", **values.parameters, "executor_worker_path": WORKER}
    )
    return config


def preprocessing(values: Values, dialect: Dialect) -> ModelConfig:
    """`preprocessing`: text to tokens; its model.py belongs to NVIDIA's container."""
    config = _create_model(PREPROCESSING, "python", values.max_batch_size)
    _add_tensors(
        config,
        dialect.rows(triton_tensors.PREPROCESSING_INPUTS),
        dialect.rows(triton_tensors.PREPROCESSING_OUTPUTS),
    )
    _add_instances(config, values.settings.preprocessing_instances)
    # model.py insists on one of the last two, by version; empty says that there is no vision model
    _add_parameters(
        config,
        {
            "tokenizer_dir": values.tokenizer_dir,
            "add_special_tokens": _format_flag(values.settings.add_special_tokens),
            "gpt_model_path": values.engine_dir,
            "visual_model_path": "",
            "multimodal_model_path": "",
        },
    )
    return config


def postprocessing(values: Values, dialect: Dialect) -> ModelConfig:
    """`postprocessing`: tokens to text; its model.py belongs to NVIDIA's container."""
    config = _create_model(POSTPROCESSING, "python", values.max_batch_size)
    # an empty message is not written unless it is marked as set; its presence turns batching on
    config.dynamic_batching.SetInParent()
    _add_tensors(
        config,
        dialect.rows(triton_tensors.POSTPROCESSING_INPUTS),
        dialect.rows(triton_tensors.POSTPROCESSING_OUTPUTS),
    )
    _add_instances(config, values.settings.postprocessing_instances)
    _add_parameters(
        config,
        {
            "tokenizer_dir": values.tokenizer_dir,
            "skip_special_tokens": _format_flag(values.settings.skip_special_tokens),
        },
    )
    return config


def bls(values: Values, dialect: Dialect, *, draft: bool) -> ModelConfig:
    """`tensorrt_llm_bls`: the chain in a program, which a draft model needs; model.py is NVIDIA's."""
    config = _create_model(BLS, "python", values.max_batch_size)
    config.model_transaction_policy.decoupled = values.decoupled
    inputs = dialect.rows(triton_tensors.TEXT_INPUTS, triton_tensors.SAMPLING, triton_tensors.DRAFT_INPUTS)
    outputs = dialect.rows(triton_tensors.TEXT_OUTPUTS, triton_tensors.ANSWERS, triton_tensors.STATISTICS)
    _add_tensors(config, inputs, outputs)
    # an instance is busy with one request at a time: fewer would leave the batch unfilled
    _add_instances(config, values.settings.bls_instances or values.max_batch_size)
    names = {
        "tensorrt_llm_model_name": LLM,
        **({"tensorrt_llm_draft_model_name": DRAFT_LLM} if draft else {}),
    }
    _add_parameters(config, {"accumulate_tokens": "false", **names})
    return config


def ensemble(values: Values, dialect: Dialect) -> ModelConfig:
    """`ensemble`: the chain of the other models, which Triton runs itself."""
    config = _create_model(ENSEMBLE, "", values.max_batch_size)
    config.platform = "ensemble"
    _add_tensors(
        config,
        dialect.rows(triton_tensors.TEXT_INPUTS, triton_tensors.SAMPLING),
        dialect.rows(triton_tensors.TEXT_OUTPUTS, triton_tensors.ANSWERS),
    )
    for name, inputs, outputs in _list_steps(dialect):
        step = config.ensemble_scheduling.step.add(model_name=name, model_version=-1)
        step.input_map.update(inputs)
        step.output_map.update(outputs)
    return config


def _list_steps(dialect: Dialect) -> list[tuple[str, dict[str, str], dict[str, str]]]:
    """Of the ensemble: model, and its inputs and outputs -> the ensemble's tensors, `_` before inner ones."""
    before = {
        "QUERY": "text_input", "REQUEST_OUTPUT_LEN": "max_tokens", "BAD_WORDS_DICT": "bad_words",
        "STOP_WORDS_DICT": "stop_words", "EMBEDDING_BIAS_WORDS": "embedding_bias_words",
        "EMBEDDING_BIAS_WEIGHTS": "embedding_bias_weights", "END_ID": "end_id", "PAD_ID": "pad_id",
    }  # fmt: skip
    tokens = {
        "input_ids": "INPUT_ID", "input_lengths": "REQUEST_INPUT_LEN",
        "decoder_input_ids": "DECODER_INPUT_ID", "decoder_input_lengths": "REQUEST_DECODER_INPUT_LEN",
        "request_output_len": "REQUEST_OUTPUT_LEN", "bad_words_list": "BAD_WORDS_IDS",
        "stop_words_list": "STOP_WORDS_IDS", "embedding_bias": "EMBEDDING_BIAS",
        "end_id": "OUT_END_ID", "pad_id": "OUT_PAD_ID",
    }  # fmt: skip
    # equal on both sides; the four below have another name in the engine's model
    passed = {tensor.name: tensor.name for tensor in dialect.rows(triton_tensors.SAMPLING)}
    passed |= {
        "runtime_top_k": "top_k",
        "runtime_top_p": "top_p",
        "len_penalty": "length_penalty",
        "streaming": "stream",
    }
    answers = [tensor.name for tensor in dialect.rows(triton_tensors.ANSWERS)]
    return [
        # outputs for vision models are mapped nowhere: they are never produced for text
        (PREPROCESSING, before, {name: f"_{name}" for name in tokens.values()}),
        (
            LLM,
            passed | {ours: f"_{token}" for ours, token in tokens.items()},
            {"output_ids": "_TOKENS_BATCH", "sequence_length": "_SEQUENCE_LENGTH"} | {n: n for n in answers},
        ),
        (
            POSTPROCESSING,
            {"TOKENS_BATCH": "_TOKENS_BATCH", "SEQUENCE_LENGTH": "_SEQUENCE_LENGTH"},
            {"OUTPUT": "text_output"},
        ),
    ]


def llmapi() -> ModelConfig:
    """`tensorrt_llm` of the LLM-API variant: batch size and decoupled mode stand in model.yaml."""
    config = _create_model(LLM, "python", None)
    # neither matters here: these tables have no @ names and no logits
    dialect = triton_tensors.dialect((1, 0), "float32")
    _add_tensors(
        config, dialect.rows(triton_tensors.LLMAPI_INPUTS), dialect.rows(triton_tensors.LLMAPI_OUTPUTS)
    )
    _add_instances(config, 1)
    return config


def _create_model(name: str, backend: str, max_batch_size: int | None) -> ModelConfig:
    config = schema.ModelConfig(name=name, backend=backend)
    if max_batch_size is not None:
        config.max_batch_size = max_batch_size
    return config


def _add_tensors(config: ModelConfig, inputs: Iterable[Tensor], outputs: Iterable[Tensor]) -> None:
    for tensor in inputs:
        added = config.input.add(
            name=tensor.name,
            data_type=schema.DataType.Value(tensor.data_type),
            dims=tensor.dims,
            optional=tensor.optional,
            allow_ragged_batch=tensor.ragged,
        )
        if tensor.scalar:
            # an empty shape: the dimension of 1 is taken away before the model sees it
            added.reshape.SetInParent()
    for tensor in outputs:
        config.output.add(
            name=tensor.name, data_type=schema.DataType.Value(tensor.data_type), dims=tensor.dims
        )


def _add_instances(config: ModelConfig, count: int) -> None:
    """Models run on the CPU as Triton sees it; the engine finds its GPUs itself."""
    config.instance_group.add(count=count, kind=schema.ModelInstanceGroup.KIND_CPU)


def _add_parameters(config: ModelConfig, parameters: Mapping[str, str]) -> None:
    for name, value in parameters.items():
        config.parameters[name].string_value = value


def _format_flag(flag: bool) -> str:  # noqa: FBT001 one value, spelt
    return "true" if flag else "false"

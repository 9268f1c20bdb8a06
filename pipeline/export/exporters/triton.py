"""Target `triton`: a model repository, for TensorRT engines and for the LLM API's."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.backend.deployment import Deployment
from pipeline.export.export_readme import container, notes
from pipeline.export.export_refusals import own_runtime
from pipeline.export.triton import (
    triton_configs,
    triton_llm_api,
    triton_script,
    triton_tensors,
    triton_values,
)
from pipeline.export.triton.triton_settings import TritonSettings

LEFT_OUT = """The configurations are ours, written through Triton's schema. The programs behind
`preprocessing`, `postprocessing` and `tensorrt_llm_bls` (model.py and what it imports) are NVIDIA's:
`serve.sh` copies them from the container that it runs in. Tensors of multimodal, encoder-decoder and LoRA
requests, of guided decoding and of KV retention are left out."""


class Triton:
    """A Triton model repository with its start script."""

    settings = TritonSettings

    def reasons(self, deployment: Deployment, settings: TritonSettings) -> list[str]:
        """Every reason why Triton cannot serve it with these settings."""
        # limits are those of a TensorRT engine; llm_options those of the PyTorch backend
        if deployment.limits is not None:
            return triton_values.reasons(deployment, settings)
        if deployment.llm_options is not None:
            return triton_llm_api.reasons(deployment, settings)
        return [own_runtime(deployment)]

    def files(self, deployment: Deployment, settings: TritonSettings) -> dict[str, str]:
        """The repository, its start script and a README."""
        if deployment.llm_options is not None:
            return triton_llm_api.files(
                deployment, settings, _write_request(deployment, settings, triton_configs.LLM)
            )
        return _engine_files(deployment, settings)

    def trees(self, deployment: Deployment, settings: TritonSettings) -> Mapping[str, Path]:
        """The engine, with its tokenizer and its draft inside."""
        return (
            triton_llm_api.trees(deployment)
            if deployment.llm_options is not None
            else {"engine": deployment.engine}
        )

    def next_steps(self, deployment: Deployment, settings: TritonSettings) -> list[str]:
        """How the server is started, and asked."""
        model = triton_configs.LLM if deployment.llm_options is not None else _choose_entry(deployment)
        return [
            f"in {container(deployment)}: {settings.root}/serve.sh",
            _write_request(deployment, settings, model),
        ]


def _engine_files(deployment: Deployment, settings: TritonSettings) -> dict[str, str]:
    dialect = triton_tensors.dialect(deployment.release, triton_values.logits_type(deployment))
    draft, engine = deployment.draft, settings.place("engine", deployment.engine)
    # both share the GPU: `resolve` divides the KV cache's memory between them
    engines = 2 if draft is not None else 1
    values = triton_values.resolve(
        deployment, settings, name=triton_configs.LLM, engine_dir=engine, engines=engines
    )
    models: dict[str, Any] = {
        triton_configs.PREPROCESSING: triton_configs.preprocessing(values, dialect),
        triton_configs.POSTPROCESSING: triton_configs.postprocessing(values, dialect),
        triton_configs.LLM: triton_configs.llm(values, dialect),
        # BLS and ensemble are both written: clients may ask either, but with a draft only BLS
        triton_configs.BLS: triton_configs.bls(values, dialect, draft=draft is not None),
        triton_configs.ENSEMBLE: triton_configs.ensemble(values, dialect),
    }
    needed = [f"{engine}/config.json", f"{engine}/tokenizer"]
    if draft is not None:
        place = f"{engine}/draft"
        second = triton_values.resolve(
            draft, settings, name=triton_configs.DRAFT_LLM, engine_dir=place, engines=engines
        )
        models[triton_configs.DRAFT_LLM] = triton_configs.llm(second, dialect)
        needed.append(f"{place}/config.json")
    start = triton_script.start(deployment, settings, dialect, needed)
    return {
        "README.md": _write_readme(deployment, settings),
        "serve.sh": start,
        **{
            f"repository/{name}/config.pbtxt": triton_configs.to_text(config)
            for name, config in models.items()
        },
    }


def _choose_entry(deployment: Deployment) -> str:
    """The model that clients ask: the ensemble, or the program that also runs a draft."""
    return triton_configs.BLS if deployment.draft is not None else triton_configs.ENSEMBLE


def _write_request(deployment: Deployment, settings: TritonSettings, model: str) -> str:
    """A request for this repository; the LLM API has its own names."""
    length = "sampling_param_max_tokens" if deployment.llm_options is not None else "max_tokens"
    body: dict[str, object] = {"text_input": "def main(", length: 32}
    if deployment.draft is not None and deployment.limits is not None:
        body["num_draft_tokens"] = deployment.limits.max_draft_len
    if settings.decoupled:
        body["streaming" if deployment.llm_options is not None else "stream"] = True
    ask = "generate_stream" if settings.decoupled else "generate"
    return f"curl -s localhost:{settings.http_port}/v2/models/{model}/{ask} -d '{json.dumps(body)}'"


def _write_readme(deployment: Deployment, settings: TritonSettings) -> str:
    # figures hold for their batch size: another one has none, and the README says so
    batch = settings.max_batch_size or deployment.max_batch_size
    batch_sizes = [row.batch_size for row in deployment.measured]
    measured = (
        ""
        if batch in batch_sizes
        else f"\n\nNo speed was measured at max_batch_size {batch}; measured were: {batch_sizes or 'none'}."
    )
    return notes(
        deployment,
        "Triton",
        (
            ("Start", f"In {container(deployment)}:\n\n    {settings.root}/serve.sh{measured}"),
            ("Ask", f"    {_write_request(deployment, settings, _choose_entry(deployment))}"),
            ("What is whose", LEFT_OUT),
        ),
    )


EXPORTER = Triton()

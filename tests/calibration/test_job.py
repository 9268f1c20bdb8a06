"""Values that cross into a child process: closed, frozen, and as JSON what a key hashes."""

import json
import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from calibration.job import Job, NoPlaces, Parameters
from calibration.parameters import LeakageParams, QuantizedParams, TextSource, located
from calibration.parameters import TextPlaces as Places
from pipeline.step.step_parameters import TunedParams
from recipes.precision import Precision
from recipes.schema import Slo

FP8 = QuantizedParams(format=Precision.parse("fp8"), kv_cache="auto", tools={"torch": "2"})


class Grown(QuantizedParams):
    """Tomorrow's parameters, with a field that today's steps do not have."""

    rotation: str | None = None


def test_a_field_without_a_value_is_absent_so_that_a_new_one_changes_no_key():
    plain = {"format": "fp8", "kv_cache": "auto", "tools": {"torch": "2"}}
    assert FP8.document() == plain
    assert Grown(format=FP8.format, kv_cache="auto", tools=FP8.tools).document() == plain
    assert FP8.model_copy(update={"smoothing": 1.0}).document() == plain | {"smoothing": 1.0}


def test_values_inside_keep_what_they_say_is_none():
    params = TunedParams(points=({"max_batch_size": 1},), objective="latency", slo=Slo(itl_ms_p95=5.0))
    assert params.document()["slo"] == {
        "ttft_ms_p95": None,
        "itl_ms_p95": 5.0,
        "tokens_per_s_per_user": None,
    }


def test_a_job_comes_back_as_it_was_written(tmp_path: Path):
    mixed = Precision.parse({"default": "fp8", "except": {"*.0.*": "none"}})
    job = Job(
        kind="quantized_checkpoint",
        params=FP8.model_copy(update={"format": mixed}),
        places=NoPlaces(),
        inputs={"source": tmp_path / os.fsdecode(b"not-utf-8-\xff")},
        out=tmp_path / "out",
    )
    assert Job[QuantizedParams, NoPlaces].read(json.loads(json.dumps(job.document()))) == job


@pytest.mark.parametrize(
    ("change", "said"),
    [({"rotation": "hadamard"}, "rotation"), ({"kv_cache": 8}, "kv_cache"), ({"tools": None}, "tools")],
)
def test_what_no_builder_knows_is_refused(change, said: str):
    with pytest.raises(ValidationError, match=said):
        QuantizedParams.model_validate(FP8.document() | change)


def test_parameters_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        setattr(FP8, "kv_cache", "fp8")  # noqa: B010 the type checker refuses an assignment


def test_files_of_a_source_are_its_own_or_those_of_the_input_that_it_names(tmp_path: Path):
    own = TextSource(kind="jsonl", digests=("0",), columns={}, bad_rows=0, render="auto")
    hub = TextSource(dataset="dataset_1", files=("a.jsonl", "b.jsonl"), columns={}, bad_rows=0, render="auto")
    places = Places(files=((tmp_path / "rows.jsonl",), ()))
    inputs = {"dataset_1": tmp_path / "data"}
    assert located([own, hub], places, inputs) == [
        (tmp_path / "rows.jsonl",),
        (tmp_path / "data" / "a.jsonl", tmp_path / "data" / "b.jsonl"),
    ]
    assert LeakageParams(gate=hub).document()["gate"]["dataset"] == "dataset_1"
    assert isinstance(own, Parameters)

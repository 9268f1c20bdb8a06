import json
import math
from typing import Any

import pytest

from calibration.errors import QuantizationIncomplete
from calibration.quantize.coverage import SOURCE, Linear, document, require

HEAD = Linear(module="lm_head", intended=SOURCE, actual=SOURCE, reason="excluded by the preset")


def linear(**changes) -> Linear:
    values = {
        "module": "model.layers.0.mlp.up_proj",
        "intended": "fp8",
        "actual": "fp8",
        "scales": {"weight_scale": (0.1, 0.2)},
    }
    return Linear(**(values | changes))


def test_linears_as_intended_pass():
    require([linear(), HEAD])


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"actual": SOURCE}, "up_proj: source instead of fp8"),
        ({"actual": "int8_wo"}, "up_proj: int8_wo instead of fp8"),
        ({"intended": SOURCE, "actual": SOURCE}, "up_proj: keeps the source dtype for no known reason"),
        ({"intended": SOURCE, "reason": "excluded"}, "up_proj: fp8 instead of source"),
        ({"scales": {"input_scale": (0.0, 0.0)}}, "up_proj: input_scale ranges from 0.0 to 0.0"),
        ({"scales": {"input_scale": (-1.0, 2.0)}}, "up_proj: input_scale ranges from -1.0 to 2.0"),
        ({"scales": {"weight_scale": (1.0, math.inf)}}, "up_proj: weight_scale ranges from 1.0 to inf"),
        ({"scales": {"weight_scale": (math.nan, math.nan)}}, "up_proj: weight_scale ranges from nan to nan"),
    ],
)
def test_a_surprise_names_the_module(changes: dict[str, Any], complaint: str):
    with pytest.raises(QuantizationIncomplete, match=complaint):
        require([HEAD, linear(**changes)])


def test_all_surprises_are_named_at_once():
    with pytest.raises(QuantizationIncomplete, match=r"(?s)first: source.*second: source"):
        require(
            [
                linear(module="first", actual=SOURCE, reason="?"),
                linear(module="second", actual=SOURCE, reason="?"),
            ]
        )


def test_the_document_counts_and_is_json():
    made = json.loads(
        json.dumps(
            document("fp8", [linear(), HEAD], {"lm_head.weight": "tied"}, {"type": "auto", "scales": {}}),
            allow_nan=False,
        )
    )
    assert (made["linears"], made["quantized"], made["left"]) == (2, 1, 1)
    assert made["modules"][1]["reason"] == "excluded by the preset"
    assert made["source_tensors_left_out"] == {"lm_head.weight": "tied"}

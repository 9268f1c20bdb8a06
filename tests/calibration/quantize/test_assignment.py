from typing import Any

import pytest

from calibration.model.linears import Layout
from calibration.quantize.assignment import assign_formats, idle_exceptions, intended_format, reason_left
from recipes.precision import Precision

LAYOUT = Layout("llama", 2)


def precision(default="fp8", **exceptions) -> Precision:
    return Precision.parse({"default": default, "except": exceptions} if exceptions else default)


def test_the_first_match_decides():
    made = precision(**{"model.layers.0.*": "none", "*.down_proj": "int8_wo"})
    formats = {name: fmt.name for name, fmt in assign_formats(made, LAYOUT).items()}
    assert formats["model.layers.0.mlp.down_proj"] == "none"
    assert formats["model.layers.1.mlp.down_proj"] == "int8_wo"
    assert formats["model.layers.1.mlp.up_proj"] == "fp8"
    assert len(formats) == 14


def test_whatever_keeps_the_source_dtype_has_a_reason():
    made = precision(**{"model.layers.0.*": "none"})
    assert reason_left(made, "model.layers.0.mlp.up_proj") == "excluded by recipe pattern 'model.layers.0.*'"
    assert reason_left(made, "model.layers.1.mlp.up_proj") == ""
    assert reason_left(made, "lm_head") == "excluded by the preset FP8_DEFAULT_CFG"
    assert reason_left(precision("none"), "lm_head") == "format none"
    assert (intended_format(made, "lm_head"), intended_format(made, "model.layers.1.mlp.up_proj")) == (
        "source",
        "fp8",
    )


@pytest.mark.parametrize(
    ("exceptions", "said"),
    [
        ({"model.layer.0.mlp.up_proj": "none"}, "did you mean 'model.layers.0.mlp.up_proj'"),
        ({"model.layers.1.mpl.*": "none"}, "did you mean 'model.layers.1.mlp.*'"),
        ({"model.layers.9.*": "none"}, "matches no linear of the model's 2 layers"),
        ({"*.down_prj": "none"}, "did you mean '*.down_proj'"),
        ({"lm_head": "int8_wo"}, "names lm_head, which no preset quantizes"),
        ({"*.mlp.*": "none", "*.down_proj": "int8_wo"}, "'*.down_proj' matches only linears that earlier"),
    ],
)
def test_an_exception_without_effect_is_refused(exceptions: dict[str, Any], said: str):
    (problem,) = idle_exceptions(precision(**exceptions), LAYOUT)
    assert said in problem


@pytest.mark.parametrize("exceptions", [{}, {"lm_head": "none"}, {"*": "none"}, {"*.0.*": "int8_wo"}])
def test_an_exception_with_an_effect_passes(exceptions: dict[str, Any]):
    assert list(idle_exceptions(precision(**exceptions), LAYOUT)) == []

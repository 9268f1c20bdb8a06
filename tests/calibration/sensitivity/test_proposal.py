"""Proposals: most of the error for the fewest bytes, and YAML that loads."""

import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from calibration.model.linears import Layout
from calibration.sensitivity.proposal import Unit, bargains, natural, propose, ranked, units, widers
from calibration.sensitivity.sensitivity_values import LinearValues
from recipes.formats import FORMATS
from recipes.precision import Precision

KINDS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj",
         "mlp.up_proj", "mlp.down_proj")  # fmt: skip


def unit(name: str, error: float, saved: int) -> Unit:
    """A linear that loses `error` and saves `saved` bytes in fp8."""
    return Unit(linears=(name,), errors={"none": 0.0, "fp8": error}, sizes={"none": 2 * saved, "fp8": saved})


def linears(num_layers: int) -> list[LinearValues]:
    """What is measured of a model; the error grows from linear to linear."""
    names = [f"model.layers.{layer}.{kind}" for layer in range(num_layers) for kind in KINDS]
    return [
        {
            "module": name,
            "errors": {"none": 0.0, "fp8": 0.001 * (n + 1)},
            "bytes": {"none": 200, "fp8": 100},
            "rows": 1,
            "shape": [1, 1],
        }
        for n, name in enumerate(names)
    ]


random_units = st.lists(
    st.tuples(st.floats(0, 1, allow_subnormal=False), st.integers(1, 10**6)), min_size=1, max_size=12
).map(lambda drawn: [unit(f"model.layers.{n}.mlp.down_proj", *one) for n, one in enumerate(drawn)])  # fmt: skip


def test_linears_that_runtimes_fuse_are_one_unit():
    found = units(linears(2), Layout("llama", 2).units())
    assert [one.label for one in found[:4]] == [
        "model.layers.0.self_attn.q_proj+k_proj+v_proj", "model.layers.0.self_attn.o_proj",
        "model.layers.0.mlp.gate_proj+up_proj", "model.layers.0.mlp.down_proj",
    ]  # fmt: skip
    assert found[0].errors["fp8"] == pytest.approx(0.001 + 0.002 + 0.003)
    assert found[0].sizes == {"none": 600, "fp8": 300}


def test_the_best_bargain_is_error_per_byte_not_error():
    cheap, dear = (
        unit("model.layers.0.self_attn.o_proj", 0.5, 10),
        unit("model.layers.1.mlp.down_proj", 0.6, 100),
    )
    assert bargains([dear, cheap], "fp8", "none") == [cheap, dear]
    assert [row["unit"] for row in ranked([cheap, dear], propose([cheap, dear], "fp8"))] == [
        dear.label, cheap.label
    ]  # fmt: skip


def test_both_numbers_of_a_proposal():
    found = [unit("model.layers.0.mlp.down_proj", 0.3, 10), unit("model.layers.1.mlp.down_proj", 0.1, 10)]
    proposal = propose(found, "fp8", keep=1)
    assert proposal.gain == pytest.approx(0.75)
    assert (proposal.added_bytes, proposal.total_bytes) == (10, 20)
    assert "1 of 2 units stay at the source dtype: 75.0 % of the summed error goes" in proposal.summary
    assert "(50.0 % of the linears)" in proposal.summary


@given(random_units)
def test_leaving_everything_removes_all_error(found):
    proposal = propose(found, "fp8", keep=len(found))
    assert proposal.gain == pytest.approx(1.0 if any(one.errors["fp8"] for one in found) else 0.0)
    assert proposal.added_bytes == sum(one.sizes["fp8"] for one in proposal.units)


@given(random_units, st.floats(0, 1))
def test_a_gain_is_reached_and_one_unit_fewer_would_not_do(found, gain):
    proposal = propose(found, "fp8", gain=gain)
    total = math.fsum(one.errors["fp8"] for one in found)
    assert proposal.gain >= gain - 1e-9 or total == 0
    if proposal.units:
        fewer = propose(found, "fp8", keep=len(proposal.units) - 1)
        assert fewer.gain < gain + 1e-9


@given(random_units)
def test_every_prefix_is_the_best_of_its_price(found):
    """No other set that adds no more bytes removes more per byte than the first bargain does."""
    ordered = bargains(found, "fp8", "none")
    rates = [one.errors["fp8"] / one.sizes["fp8"] for one in ordered]
    assert rates == sorted(rates, reverse=True)
    assert len(ordered) == sum(one.errors["fp8"] > 0 for one in found)


@pytest.mark.parametrize("keep", [0, 1, 3, 8])
def test_the_yaml_reads_back_as_the_format_proposed(keep: int):
    found = units(linears(2), Layout("llama", 2).units())
    proposal = propose(found, "fp8", keep=keep)
    value = yaml.safe_load(proposal.yaml)["format"]
    assert value == proposal.recipe_format
    precision = Precision.parse(value)
    kept = {name for one in proposal.units for name in one.linears}
    assert len(proposal.units) == keep
    for linear in linears(2):
        assert precision.of(linear["module"]).name == ("none" if linear["module"] in kept else "fp8")


def test_units_that_blocks_do_not_fit_are_exceptions_whatever_else_is_proposed():
    odd = Unit(linears=("model.layers.0.mlp.down_proj",), errors={"none": 0.0}, sizes={"none": 50})
    proposal = propose([odd, unit("model.layers.1.mlp.down_proj", 0.1, 10)], "fp8", keep=0)
    assert proposal.exceptions == {"model.layers.0.mlp.down_proj": "none"}
    assert (proposal.units, proposal.gain, proposal.fitting, proposal.total_bytes) == ((), 0.0, 1, 60)


def test_a_wider_format_that_is_worse_is_not_proposed():
    worse = Unit(
        linears=("model.layers.0.mlp.down_proj",),
        errors={"none": 0.0, "int4_wo": 0.1, "int8_sq": 0.2},
        sizes={"none": 200, "int4_wo": 50, "int8_sq": 100},
    )
    assert propose([worse], "int4_wo", "int8_sq", keep=1).units == ()
    assert propose([worse], "int4_wo", "none", keep=1).units == (worse,)


def test_wider_formats_have_more_bits():
    assert widers("fp8") == ["none"]
    assert set(widers("int4_awq")) == {"none", "fp8", "fp8_rowwise", "int8_sq", "int8_wo"}
    assert all("none" in widers(name) for name in FORMATS if name != "none")


def test_layer_ten_comes_after_layer_nine():
    assert sorted(["model.layers.10.mlp", "model.layers.9.mlp"], key=natural) == [
        "model.layers.9.mlp", "model.layers.10.mlp"
    ]  # fmt: skip

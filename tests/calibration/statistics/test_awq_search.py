"""AWQ's search from second moments: what it computes, what the writer would write, and properties."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.errors import CheckpointError
from calibration.formats.scales import Measured, quantized
from calibration.statistics import awq_search, budget
from recipes.formats import FORMATS
from tests.calibration.reference import dequantized

CUDA = pytest.param(
    "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
)
OUTLIERS = 4


def inputs(tokens: int, channels: int, seed: int = 0) -> torch.Tensor:
    """Correlated bfloat16 activations [N, I] with magnitudes that differ by channel, and some outliers."""
    draw = torch.Generator().manual_seed(seed)
    amplitude_I = torch.randn(channels, generator=draw).exp()
    amplitude_I[torch.randperm(channels, generator=draw)[:OUTLIERS]] *= 100
    common_N1 = torch.randn(tokens, 1, generator=draw)
    return ((torch.randn(tokens, channels, generator=draw) + common_N1) * amplitude_I).bfloat16()


def weight(num_out: int, num_in: int, seed: int = 0, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    """Weights [O, I] whose columns differ in magnitude, with a block of zeros."""
    draw = torch.Generator().manual_seed(seed)
    columns_I = (0.5 * torch.randn(num_in, generator=draw)).exp()
    made = torch.randn(num_out, num_in, generator=draw) * 0.02 * columns_I
    made[0, :128] = 0
    return made.to(dtype)


def find(weights: list[torch.Tensor], x_NI: torch.Tensor) -> awq_search.SearchResult:
    moments = awq_search.Moments(x_NI.shape[1], "cpu")
    moments.add(x_NI)
    return awq_search.best(weights, moments.gram_II, mean(x_NI))


def mean(x_NI: torch.Tensor) -> torch.Tensor:
    return x_NI.float().abs().mean(dim=0)


def factors(weights: list[torch.Tensor], x_NI: torch.Tensor) -> torch.Tensor:
    """All candidates [C, I], from the formula in words: one weight scale of the rows together."""
    rows = torch.cat(weights).double()
    blocks = rows.abs().view(len(rows), -1, 128)
    share_I = (blocks / blocks.amax(dim=2, keepdim=True).clamp(min=1e-30)).flatten(1).mean(dim=0)
    made = []
    for tenths in range(11):
        alpha = tenths / 10
        scale_I = (mean(x_NI).double() ** alpha / share_I ** (1 - alpha)).clamp(1e-4, 1e4)
        made.append((scale_I.max() * scale_I.min()).sqrt() / scale_I)
    return torch.stack(made).float().to(weights[0].dtype).float()


def written(weight_OI: torch.Tensor, factors_I: torch.Tensor) -> torch.Tensor:
    """The weights in float64 that a checkpoint stands for, inputs being multiplied by the factors."""
    shared = factors_I.to(weight_OI.dtype)
    found = Measured(fmt=FORMATS["int4_awq"], smoothing=factors_I, shared=shared, folded=True)
    parts = quantized(weight_OI, found)
    return dequantized(parts["weight"], parts["weight_scale"]).double() * factors_I.double()


def pushed(weights: list[torch.Tensor], x_NI: torch.Tensor, factors_I: torch.Tensor) -> float:
    """Relative squared output error of what is written, by pushing the activations in float64."""
    x = x_NI.double()
    changed = sum((x @ (w.double() - written(w, factors_I)).T).square().sum() for w in weights)
    return float(changed / sum((x @ w.double().T).square().sum() for w in weights))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_error_is_that_of_the_bytes_that_are_written(dtype: torch.dtype):
    w = weight(64, 512, dtype=dtype)
    for factors_I in factors([w], inputs(256, 512)):
        expected = w.double() - written(w, factors_I)
        torch.testing.assert_close(
            awq_search.error(w, factors_I, 128, torch.float32).double(), expected, rtol=0, atol=1e-8
        )


@pytest.mark.parametrize("outputs", [[256], [192, 64, 64]])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_losses_from_moments_equal_pushing_the_activations(outputs: list[int], dtype: str):
    x = inputs(512, 640).to(getattr(torch, dtype))
    weights = [weight(n, 640, seed, x.dtype) for seed, n in enumerate(outputs)]
    found = find(weights, x)
    expected = [pushed(weights, x, factors_I) for factors_I in factors(weights, x)]
    assert found.losses_C.tolist() == pytest.approx(expected, rel={"float32": 1e-4, "bfloat16": 1e-3}[dtype])


def test_the_choice_is_the_best_for_all_linears_together():
    x = inputs(1024, 512)
    weights = [weight(128, 512, seed) for seed in range(3)]
    found = find(weights, x)
    candidates = factors(weights, x)
    losses = [pushed(weights, x, factors_I) for factors_I in candidates]
    best = min(range(len(losses)), key=losses.__getitem__)
    torch.testing.assert_close(found.smoothing_I, candidates[best], rtol=2**-7, atol=0)
    assert best == int(found.losses_C.argmin())
    assert min(losses) < 0.5 * max(losses)  # else the choice would not matter


def test_the_factors_are_values_of_the_source_dtype():
    found = find([weight(64, 256)], inputs(256, 256))
    assert found.smoothing_I.dtype == torch.float32
    assert torch.equal(found.smoothing_I.bfloat16().float(), found.smoothing_I)


@pytest.mark.slow
@pytest.mark.parametrize("channels", [128, 700, 4096])
def test_moments_are_the_products_sum(channels: int):
    x = inputs(300, channels)
    moments = awq_search.Moments(channels, "cpu")
    for batch in x.split(100):
        moments.add(batch)
    expected = x.double().T @ x.double()
    bound_II = expected.diagonal().sqrt().outer(expected.diagonal().sqrt())  # Cauchy and Schwarz
    error_II = (moments.gram_II - expected).abs() / bound_II
    assert error_II.diagonal().max() < 1e-6
    assert error_II.max() < 2**-8  # bfloat16 has 8 bits of mantissa
    assert torch.equal(moments.gram_II, moments.gram_II.T)


def test_moments_go_on_after_they_were_read():
    x = inputs(200, 600)
    moments, whole = awq_search.Moments(600, "cpu"), awq_search.Moments(600, "cpu")
    moments.add(x[:100])
    assert moments.gram_II.any()
    moments.add(x[100:])
    for batch in x.split(100):
        whole.add(batch)
    assert torch.equal(moments.gram_II, whole.gram_II)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), inputs_by=st.integers(-5, 1), weights_by=st.integers(-6, 6))
def test_neither_the_inputs_nor_the_weights_scale_matters(seed, inputs_by, weights_by):
    x, w = inputs(256, 256, seed), weight(32, 256, seed, torch.float32)
    assert mean(x).max() * 2.0**inputs_by < awq_search.SCALE_RANGE[1]  # else ModelOpt's bound would
    one = find([w], x)
    other = find([w * 2.0**weights_by], x * 2.0**inputs_by)
    torch.testing.assert_close(one.losses_C, other.losses_C, rtol=1e-3, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 1e-4), ("bfloat16", 1e-3)])
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), order=st.permutations(range(8)))
def test_the_order_of_batches_does_not_matter(dtype: str, rtol: float, seed, order):
    x, w = inputs(512, 256, seed).to(getattr(torch, dtype)), weight(256, 256, seed, getattr(torch, dtype))
    losses = []
    for numbers in (range(8), order):
        moments = awq_search.Moments(256, "cpu")
        for number in numbers:
            moments.add(x.split(64)[number])
        losses.append(awq_search.best([w], moments.gram_II, mean(x)).losses_C)
    torch.testing.assert_close(*losses, rtol=rtol, atol=0)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), dead=st.sets(st.integers(0, 255), max_size=256), dtype=st.sampled_from(["bfloat16", "float16"]))  # fmt: skip
def test_dead_channels_are_smoothed_by_finite_factors(seed, dead, dtype):
    x, w = inputs(128, 256, seed), weight(32, 256, seed, getattr(torch, dtype))
    x[:, sorted(dead)] = 0
    w[:, sorted(dead)[::2]] = 0
    found = find([w], x)
    assert found.losses_C.isfinite().all()
    assert found.smoothing_I.min() >= 0.99e-4
    assert found.smoothing_I.max() <= 1.01e4


def test_all_channels_dead_changes_nothing():
    found = find([weight(32, 256)], torch.zeros(16, 256, dtype=torch.bfloat16))
    assert not found.losses_C.any()
    assert found.smoothing_I.isfinite().all()


def test_blocks_that_do_not_divide_the_channels_are_refused():
    with pytest.raises(CheckpointError, match="704 input channels are not whole blocks of 128"):
        find([weight(32, 704)], inputs(16, 704))


@pytest.mark.parametrize("device", [CUDA])
@pytest.mark.parametrize("num_in", [256, 4096])
def test_a_gpu_finds_what_the_cpu_finds(device, num_in: int):
    x, weights = inputs(2048, num_in), [weight(300, num_in), weight(77, num_in, 1)]
    expected = find(weights, x)
    moments = awq_search.Moments(num_in, device)
    for batch in x.to(device).split(512):
        moments.add(batch)
    on_gpu = [w.to(device) for w in weights]
    found = awq_search.best(on_gpu, moments.gram_II, mean(x).to(device))
    torch.testing.assert_close(found.losses_C.cpu(), expected.losses_C, rtol=1e-3, atol=0)
    assert found.losses_C.argmin().item() == expected.losses_C.argmin().item()


@pytest.mark.parametrize("device", [CUDA])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_kernel_rounds_as_the_cpu_does(device, dtype: torch.dtype):
    from calibration.statistics.kernel import error  # needs Triton, which comes with a CUDA torch

    w = weight(300, 512, dtype=dtype)
    for factors_I in factors([w], inputs(256, 512)):
        expected = awq_search.error(w, factors_I, 128, torch.float32)
        found = error(w.to(device), factors_I.to(device), 128, torch.float32).cpu()
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("device", [CUDA])
@pytest.mark.parametrize(("num_out", "num_in"), [(6144, 4096), (2048, 14336)])
def test_a_search_takes_no_more_memory_than_it_declares(device, num_out: int, num_in: int):
    weights = [torch.randn(num_out, num_in, device=device).bfloat16()]
    gram_II, mean_I = torch.eye(num_in, device=device), torch.ones(num_in, device=device)
    awq_search.best(weights, gram_II, mean_I)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    awq_search.best(weights, gram_II, mean_I)
    assert torch.cuda.max_memory_allocated() - before <= budget.search_bytes(num_out, num_in)

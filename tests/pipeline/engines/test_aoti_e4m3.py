"""Float arithmetic against torch's own conversions of float8_e4m3fn."""

import pytest
import torch

from pipeline.engines.aoti import e4m3

EVERY = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn)
FINITE = EVERY[~EVERY.float().isnan()]


def test_every_stored_value_is_widened_exactly():
    assert torch.equal(e4m3.widened(FINITE), FINITE.float())


def test_the_edges_between_values_and_everything_around_them_round_as_torch_does():
    values = FINITE.float().sort().values
    edges = (values[1:] + values[:-1]) / 2
    up, down = torch.tensor(torch.inf), torch.tensor(-torch.inf)
    x = torch.cat([values, edges, edges.nextafter(up), edges.nextafter(down)])
    assert torch.equal(e4m3.rounded(x), x.to(torch.float8_e4m3fn).float())


@pytest.mark.parametrize("spread", [1e-4, 1e-2, 1.0, 100.0])
def test_random_values_round_as_torch_does_once_they_are_clamped(spread: float):
    x = torch.randn(100_000, generator=torch.Generator().manual_seed(0)) * spread
    assert torch.equal(e4m3.rounded(x), x.clamp(-448, 448).to(torch.float8_e4m3fn).float())


def test_beyond_the_range_is_clamped_and_nan_stays():
    x = torch.tensor([500.0, -1e9, torch.inf, torch.nan])
    assert e4m3.rounded(x)[:3].tolist() == [448, -448, 448]
    assert e4m3.rounded(x)[3].isnan()

from pathlib import Path

import pytest
import torch

from calibration.statistics import hidden
from calibration.statistics.hidden import HiddenStates

SHAPES = [(2, 3, 4)] * 5 + [(1, 3, 4)]


def states(folder: Path, *, resident: bool = False) -> HiddenStates:
    return HiddenStates(folder, list(SHAPES), torch.bfloat16, torch.device("cpu"), resident=resident)


def values(layer: int) -> list[torch.Tensor]:
    return [torch.full(shape, 10.0 * layer + n).bfloat16() for n, shape in enumerate(SHAPES)]


def put(made: HiddenStates, layer: int) -> None:
    for number, batch in enumerate(values(layer)):
        made.put(layer, number, batch)


def read(made: HiddenStates, layer: int) -> bool:
    pairs = zip(made.inputs(layer), values(layer), strict=True)
    return all(found.equal(expected) for found, expected in pairs)


def test_a_layer_writes_beside_what_it_reads(tmp_path: Path):
    made = states(tmp_path)
    put(made, 0)
    made.begin(0, last=False)
    put(made, 1)
    assert read(made, 0)
    assert read(made, 1)
    assert read(states(tmp_path), 1)  # another process


def test_files_that_are_too_short_are_not_taken_up(tmp_path: Path):
    assert not states(tmp_path).take_up(0)
    put(states(tmp_path), 2)
    assert states(tmp_path).take_up(2)
    assert not states(tmp_path).take_up(3)
    file = tmp_path / "hidden-0.1.bin"
    file.write_bytes(file.read_bytes()[:-1])
    assert not states(tmp_path).take_up(2)


@pytest.mark.parametrize("resumed", [0, 3, 4])
def test_what_was_kept_last_is_not_overwritten_before_the_next_is_whole(
    tmp_path: Path, resumed: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(hidden, "SAVE_EVERY_S", 0.0)
    put(states(tmp_path), resumed)
    made, kept = states(tmp_path, resident=True), resumed
    assert made.take_up(resumed)
    for layer in range(resumed, resumed + 6):
        assert read(made, layer)
        made.begin(layer, last=False)
        put(made, layer + 1)
        if made.saving:
            assert read(states(tmp_path), kept), "needed until the new one is committed"
            kept = layer + 1
            assert read(states(tmp_path), kept)
    assert kept > resumed


def test_states_on_a_gpu_are_kept_no_more_often_than_they_cost(tmp_path: Path):
    made = states(tmp_path, resident=True)
    for layer in range(6):
        made.begin(layer, last=layer == 5)
        assert not made.saving

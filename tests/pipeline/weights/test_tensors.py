"""Reading safetensors files and checkpoint directories, good and bad."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from pipeline.errors import SourceError
from pipeline.weights.tensors import item_bytes, open_checkpoint, read_header

TENSORS = {
    "w": np.arange(12, dtype=np.float32).reshape(3, 4),
    "b": np.arange(3, dtype=np.int8),
    "s": np.array(2.5, np.float32),
}


def raw_file(path: Path, header, data: bytes = b"") -> Path:
    text = json.dumps(header).encode() if isinstance(header, dict) else header
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A directory with one weight file."""
    save_file(TENSORS, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    return tmp_path


def split(directory) -> dict[str, Any]:
    """Turns the one-file checkpoint into one of two files with an index."""
    (directory / "model.safetensors").unlink()
    save_file({"w": TENSORS["w"]}, directory / "a.safetensors")
    save_file({"b": TENSORS["b"], "s": TENSORS["s"]}, directory / "b.safetensors")
    return {"w": "a.safetensors", "b": "b.safetensors", "s": "b.safetensors"}


def write_index(directory: Path, weight_map) -> None:
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_tensors_are_read_as_the_library_wrote_them(checkpoint: Path):
    opened = open_checkpoint(checkpoint)
    assert opened.config == {"model_type": "llama"}
    assert opened.entries.keys() == TENSORS.keys()
    for name, expected in TENSORS.items():
        np.testing.assert_array_equal(opened.array(name), expected)


def test_indexed_files_are_one_checkpoint(checkpoint: Path):
    write_index(checkpoint, split(checkpoint))
    opened = open_checkpoint(checkpoint)
    assert {name: entry.file.name for name, entry in opened.entries.items()} == {
        "w": "a.safetensors", "b": "b.safetensors", "s": "b.safetensors",
    }  # fmt: skip
    np.testing.assert_array_equal(opened.array("w"), TENSORS["w"])


def test_bfloat16_becomes_float32_exactly(tmp_path: Path):
    bits = np.array([0x3F80, 0xC020, 0x0001], np.uint16)  # 1.0, -2.5, the smallest subnormal
    fields = {"x": {"dtype": "BF16", "shape": [3], "data_offsets": [0, 6]}}
    raw_file(tmp_path / "model.safetensors", fields, bits.tobytes())
    (tmp_path / "config.json").write_text("{}")
    np.testing.assert_array_equal(
        open_checkpoint(tmp_path).floats("x"), np.array([1.0, -2.5, 2.0**-133], np.float32)
    )


def test_integers_are_no_scales(checkpoint: Path):
    with pytest.raises(SourceError, match="'b' is I8; F32, F16 or BF16 is needed"):
        open_checkpoint(checkpoint).floats("b")


def test_dropped_pages_can_be_read_again(tmp_path: Path):
    big = np.arange(1 << 16, dtype=np.float32)
    save_file({"big": big}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    opened = open_checkpoint(tmp_path)
    view = opened.array("big")
    assert view.sum() == big.sum()
    opened.drop_pages(opened.entries["big"], 0, big.nbytes)
    np.testing.assert_array_equal(view, big)


@pytest.mark.parametrize(
    ("dtype", "bits", "finite"),
    [
        ("BF16", 0x7F7F, True), ("BF16", 0x7F80, False), ("BF16", 0xFFC0, False),
        ("F16", 0x7BFF, True), ("F16", 0xFC00, False),
        ("F32", 0x7F7FFFFF, True), ("F32", 0x7FC00000, False),
        ("F8_E4M3", 0x7E, True), ("F8_E4M3", 0xFF, False),
        ("I8", 0x7F, True),
    ],
)  # fmt: skip
def test_nan_and_infinity_are_found_in_every_float_type(tmp_path: Path, dtype: str, bits: int, finite: bool):
    size = item_bytes(dtype)
    fields = {"x": {"dtype": dtype, "shape": [3], "data_offsets": [0, 3 * size]}}
    raw_file(tmp_path / "model.safetensors", fields, bytes(2 * size) + bits.to_bytes(size, "little"))
    (tmp_path / "config.json").write_text("{}")
    assert open_checkpoint(tmp_path).finite("x") is finite


def test_same_compares_bytes(checkpoint: Path):
    opened = open_checkpoint(checkpoint)
    assert opened.same("w", "w")
    assert not opened.same("w", "b")


@pytest.mark.parametrize("kept", [0, 5, 40, -1])
def test_truncated_file_is_named_with_both_sizes(checkpoint: Path, kept: int):
    path = checkpoint / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:kept])
    with pytest.raises(
        SourceError, match=rf"model\.safetensors: \d+ bytes expected.*{len(whole[:kept])} found"
    ):
        read_header(path)


def test_truncation_in_the_data_says_the_exact_sizes(checkpoint: Path):
    path = checkpoint / "model.safetensors"
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size - 3)
    with pytest.raises(SourceError, match=f"{size} bytes expected from the header, {size - 3} found"):
        open_checkpoint(checkpoint)


def test_trailing_bytes_are_refused(checkpoint: Path):
    path = checkpoint / "model.safetensors"
    with path.open("ab") as file:
        file.write(b"more")
    with pytest.raises(SourceError, match="fetch the file again"):
        read_header(path)


@pytest.mark.parametrize(
    ("header", "size", "said"),
    [
        (b"{nonsense", 0, "not valid JSON"),
        (b'{"a": 1, "a": 2}', 0, "the name 'a' appears twice"),
        (b"[1]", 0, "not a JSON object"),
        ({"__metadata__": {"a": 1}}, 0, "__metadata__ is {'a': 1}; it must be an object of strings"),
        ({"__metadata__": [1]}, 0, r"__metadata__ is \[1\]; it must be"),
        ({"__metadata__": None}, 0, "__metadata__ is null; it must be"),
        ({"x": {"dtype": "F4", "shape": [1], "data_offsets": [0, 1]}}, 1, "'x' has dtype 'F4'"),
        (
            {"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}},
            4,
            "takes 8 bytes, the header gives it 4",
        ),
        ({"x": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}}, 4, r"shape \[-1, -1\].*whole"),
        ({"x": {"dtype": "U8", "shape": [2], "data_offsets": [1, 3]}}, 3, "must follow one another"),
        (
            {
                "x": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]},
                "y": {"dtype": "U8", "shape": [2], "data_offsets": [1, 3]},
            },
            3,
            "'y' starts at byte",
        ),
    ],
)
def test_broken_headers_are_refused(tmp_path: Path, header, size: int, said: str):
    with pytest.raises(SourceError, match=said):
        read_header(raw_file(tmp_path / "x.safetensors", header, bytes(size)))


def test_an_html_page_is_no_safetensors_file(tmp_path: Path):
    (tmp_path / "x.safetensors").write_text("<!DOCTYPE html><html>rate limited</html>")
    with pytest.raises(SourceError, match="truncated or no safetensors file"):
        read_header(tmp_path / "x.safetensors")


def test_pickles_only_are_refused_by_name(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80")
    with pytest.raises(SourceError, match=r"pytorch_model\.bin.*only safetensors files are read"):
        open_checkpoint(tmp_path)


def test_a_directory_without_weights_is_refused(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(SourceError, match="holds no weights"):
        open_checkpoint(tmp_path)


def test_missing_config_is_refused(checkpoint: Path):
    (checkpoint / "config.json").unlink()
    with pytest.raises(SourceError, match=r"config\.json: no such file"):
        open_checkpoint(checkpoint)


@pytest.mark.parametrize(("text", "said"), [("{", "not valid JSON"), ("[]", "not a JSON object")])
def test_broken_config_is_refused(checkpoint: Path, text: str, said: str):
    (checkpoint / "config.json").write_text(text)
    with pytest.raises(SourceError, match=said):
        open_checkpoint(checkpoint)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"w": "c.safetensors"}, r"c\.safetensors: no such file"),
        ({"extra": "a.safetensors"}, "'extra' of the index is missing"),
        ({"w": "b.safetensors"}, "'w' of the index is missing"),
        ({"w": "../a.safetensors"}, r"'w' in '\.\./a\.safetensors'; it must be a plain file name"),
    ],
)
def test_index_that_does_not_fit_its_files_is_refused(checkpoint: Path, change: dict[str, Any], said: str):
    write_index(checkpoint, split(checkpoint) | change)
    with pytest.raises(SourceError, match=said):
        open_checkpoint(checkpoint)


def test_tensor_that_the_index_omits_is_refused(checkpoint: Path):
    weight_map = split(checkpoint)
    del weight_map["s"]
    write_index(checkpoint, weight_map)
    with pytest.raises(SourceError, match="'s' is not in the index"):
        open_checkpoint(checkpoint)


@pytest.mark.parametrize(
    ("index", "said"),
    [("{}", "missing"), ('{"weight_map": {}}', "empty"), ('{"weight_map": null}', "null")],
)
def test_index_without_a_map_is_refused(checkpoint: Path, index: str, said: str):
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "model.safetensors.index.json").write_text(index)
    with pytest.raises(SourceError, match=f"weight_map is {said};"):
        open_checkpoint(checkpoint)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_pointer_of_git_lfs_is_named_as_such(checkpoint: Path, name: str):
    (checkpoint / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 12\n")
    with pytest.raises(SourceError, match=f"{name}: is a Git LFS pointer .* run `git lfs pull`"):
        open_checkpoint(checkpoint)


@pytest.mark.parametrize("name", ["model.safetensors", "model.safetensors.index.json"])
def test_weights_that_are_a_link_to_nothing_are_told_as_such(checkpoint: Path, name: str):
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / name).symlink_to("../blobs/gone")
    with pytest.raises(SourceError, match=rf"{name}: is a link to \.\./blobs/gone, which does not exist"):
        open_checkpoint(checkpoint)

"""Model directories that no honest program wrote, and what is said of each; laid out over the base of tests/cases."""

import json
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

CONFIG, INDEX, WEIGHTS = "config.json", "model.safetensors.index.json", "model.safetensors"
NAN, INFINITY = float("nan"), float("inf")
NESTED = 100_000

Change = Callable[[Path], None]


def fields(**change: object) -> Change:
    """Changes fields of config.json."""

    def apply(model: Path) -> None:
        config = json.loads((model / CONFIG).read_text())
        (model / CONFIG).write_text(json.dumps(config | change))

    return apply


def text(name: str, data: bytes) -> Change:
    """Replaces a file by other bytes."""
    return lambda model: void((model / name).write_bytes(data))


def header(data: object, more: bytes = b"", length: int | None = None) -> Change:
    """Replaces the weights by a header, and bytes behind it."""
    head = data if isinstance(data, bytes) else json.dumps(data).encode()
    size = len(head) if length is None else length
    return text(WEIGHTS, struct.pack("<Q", size) + head + more)


def tensor(dtype: object = "F32", shape: object = (1,), data_offsets: object = (0, 4)) -> Change:
    """A file of one tensor of four bytes."""
    return header({"x": {"dtype": dtype, "shape": shape, "data_offsets": data_offsets}}, bytes(4))


def index(weight_map: object, **more: object) -> Change:
    """Puts an index in the place of the weights."""

    def apply(model: Path) -> None:
        (model / WEIGHTS).rename(model / "model-00001-of-00001.safetensors")
        data = (
            weight_map
            if isinstance(weight_map, bytes)
            else json.dumps({"weight_map": weight_map, **more}).encode()
        )
        (model / INDEX).write_bytes(data)

    return apply


def instead(name: str, make: Callable[[Path], object]) -> Change:
    """Makes something else than a file of that name."""

    def apply(model: Path) -> None:
        (model / name).unlink()
        make(model / name)

    return apply


def void(_: object) -> None:
    """Drops a result."""


def make_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path has 107 bytes at most
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)
    os.chdir(here)


CASES: dict[str, tuple[Change, str]] = {
    "hidden size of 10^18": (fields(hidden_size=10**18), r"config\.json: hidden_size is 1000000000000000000; .* 1 to 1048576"),
    "a billion layers": (fields(num_hidden_layers=10**9), r"num_hidden_layers is 1000000000; .* from 1 to 1024"),
    "a number of 300 digits": (fields(vocab_size=10**299), r"vocab_size is a number of 300 digits; .* 1 to 16777216"),
    "a number of 5000 digits": (text(CONFIG, b'{"a": ' + b"1" * 5000 + b"}"), r"config\.json: .*5000 characters, at most 400"),
    "negative heads": (fields(num_attention_heads=-4), "num_attention_heads is -4"),
    "no heads": (fields(num_attention_heads=0), "num_attention_heads is 0"),
    "heads that are true": (fields(num_key_value_heads=True), "num_key_value_heads is true"),
    "half a layer": (fields(num_hidden_layers=2.5), r"num_hidden_layers is 2\.5"),
    "layers as a float": (fields(num_hidden_layers=2.0), r"num_hidden_layers is 2\.0"),
    "a list of sizes": (fields(intermediate_size=[256]), r"intermediate_size is \[256\]"),
    "an object of sizes": (fields(head_dim={"a": {}}), "head_dim is an object of 1"),
    "epsilon NaN": (fields(rms_norm_eps=NAN), "rms_norm_eps is nan; it must be above 0"),
    "epsilon infinite": (fields(rms_norm_eps=INFINITY), "rms_norm_eps is inf; it must be above 0"),
    "epsilon 1e999": (text(CONFIG, b'{"architectures": ["LlamaForCausalLM"], "rms_norm_eps": 1e999}'), "rms_norm_eps is inf"),
    "epsilon negative": (fields(rms_norm_eps=-1e-6), "rms_norm_eps is -1e-06"),
    "theta of letters": (fields(rope_theta="x"), "rope_theta is 'x'; it must be a finite number above 0"),
    "theta NaN in its block": (fields(rope_parameters={"rope_theta": NAN}), r"rope_parameters\.rope_theta is nan"),
    "theta of 399 digits": (fields(rope_parameters={"rope_theta": 10**398}), r"rope_theta is a number of 399 digits"),
    "a factor that is a list": (fields(rope_scaling={"type": "linear", "factor": [2]}), r"rope_scaling\.factor is \[2\]"),
    "tied: no": (fields(tie_word_embeddings="no"), "tie_word_embeddings is 'no'; it must be true or false"),
    "tied: 1": (fields(tie_word_embeddings=1), "tie_word_embeddings is 1; it must be true or false"),
    "a type of a megabyte": (fields(model_type="x" * 1_000_000), r"model_type is 'x{99}\.\.\.; "),
    "architectures of lists": (fields(architectures=[["LlamaForCausalLM"]]), "architectures is a list of 1"),
    "no model_type": (fields(model_type=None), "model_type is null; .* for LlamaForCausalLM is 'llama'"),
    "config: a list": (text(CONFIG, b"[1]"), r"config\.json: not a JSON object but \[1\]"),
    "config: nothing": (text(CONFIG, b""), r"config\.json: not valid JSON"),
    "config: not UTF-8": (text(CONFIG, b'{"a": "\xff"}'), r"config\.json: not valid JSON"),
    "config: a name twice": (text(CONFIG, b'{"hidden_size": 1, "hidden_size": 2}'), "'hidden_size' appears twice"),
    "config: deep": (text(CONFIG, b'{"a": ' + b"[" * NESTED + b"]" * NESTED + b"}"), r"config\.json: nested 100001 deep; at most 64"),
    "config: values": (text(CONFIG, b'{"a": [' + b"[]," * 900_000 + b"0]}"), r"config\.json: 1\d{6} values and names; at most"),
    "config: 40 MB": (text(CONFIG, b"[" * (40 << 20)), r"config\.json: more than 33554432 bytes"),
    "config: a FIFO": (instead(CONFIG, os.mkfifo), r"config\.json: is a FIFO"),
    "config: a device": (instead(CONFIG, lambda path: path.symlink_to("/dev/zero")), r"config\.json: is a device"),
    "config: a directory": (instead(CONFIG, Path.mkdir), r"config\.json: is a directory"),
    "config: a socket": (instead(CONFIG, make_socket), r"config\.json: is a socket"),
    "weights: a FIFO": (instead(WEIGHTS, os.mkfifo), r"model\.safetensors: is a FIFO"),
    "weights: a device": (instead(WEIGHTS, lambda path: path.symlink_to("/dev/zero")), r"model\.safetensors: is a device"),
    "header: deep": (header(b'{"x":' * NESTED + b"}" * NESTED), r"model\.safetensors: header: nested 100000 deep"),
    "header: longer than the file": (header(b"{}", length=1 << 62), r"model\.safetensors: \d{19} bytes expected for the header"),
    "header: longest": (header(b"{" + b" " * (32 << 20)), r"at most 33554432 are read"),
    "header: values": (header(b'{"x":[' + b'{"a":0},' * 500_000 + b"0]}"), r"header: 1\d{6} values and names"),
    "header: a list": (header([1]), "header: not a JSON object but"),
    "header: a name twice": (header(b'{"x":{},"x":{}}'), "header: .*'x' appears twice"),
    "tensor: no object": (header({"x": 1}), "'x' has dtype null, shape null and data_offsets null; needed are"),
    "tensor: offsets of letters": (tensor(data_offsets=["0", "4"]), r"'x' .*data_offsets \['0', '4'\]; needed"),
    "tensor: offsets of floats": (tensor(data_offsets=[0.0, 4.0]), r"data_offsets \[0\.0, 4\.0\]; needed"),
    "tensor: three offsets": (tensor(data_offsets=[0, 2, 4]), r"data_offsets \[0, 2, 4\]; needed"),
    "tensor: negative offsets": (tensor(data_offsets=[-4, 0]), r"data_offsets \[-4, 0\]; needed"),
    "tensor: beyond the file": (tensor(shape=[1 << 40], data_offsets=[0, 1 << 42]), r"\d{13} bytes expected from the header"),
    "tensor: backwards": (tensor(data_offsets=[4, 0]), "takes 4 bytes, the header gives it -4"),
    "tensor: a product beyond all": (tensor(shape=[(1 << 63) - 1] * 16), r"'x' of shape .* takes \d+ bytes, the header gives it 4"),
    "tensor: a hundred axes": (tensor(shape=[1] * 100), "shape a list of 100"),
    "tensor: an axis of 400 digits": (tensor(shape=[10**399]), r"shape \[a number of 400 digits\]"),
    "tensor: an axis that is true": (tensor(shape=[True]), r"shape \[true\]"),
    "tensor: unknown dtype": (tensor(dtype="F12"), "dtype 'F12'"),
    "tensor: dtype of a list": (tensor(dtype=["F32"]), r"dtype \['F32'\]"),
    "tensors that overlap": (
        header({name: {"dtype": "U8", "shape": [2], "data_offsets": [start, start + 2]} for name, start in (("x", 0), ("y", 1))}, bytes(3)),
        "'y' starts at byte",
    ),
    "index: a list": (index(["x"]), r"index\.json: weight_map is \['x'\]"),
    "index: a number for a file": (index({"x": 1}), r"index\.json: places tensor 'x' in 1; it must be a plain file name"),
    "index: another directory": (index({"x": "../model.safetensors"}), r"'\.\./model\.safetensors'; it must be"),
    "index: the directory above": (index({"x": ".."}), r"in '\.\.'; it must be"),
    "index: no name": (index({"x": ""}), r"in ''; it must be"),
    "index: a zero byte": (index({"x": "a\0b"}), r"it must be a plain file name"),
    "index: a name too long": (index({"x": "a" * 300}), r"cannot be read \(File name too long\)"),
    "index: half a character": (index({"x": "\ud800"}), r"cannot be read"),
    "end of text: a word": (text("generation_config.json", b'{"eos_token_id": "</s>"}'), r"generation_config\.json: eos_token_id is '</s>'; it must be"),
    "generation config: a list": (text("generation_config.json", b"[]"), r"generation_config\.json: not a JSON object"),
    "index: deep": (index(b'{"weight_map":' * NESTED + b"0" + b"}" * NESTED), r"index\.json: nested 100000 deep"),
}  # fmt: skip
"""What it is -> how to make it of an honest model, and what is said of it."""

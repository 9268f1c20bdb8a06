"""Two files of one name: what is different, and why it matters."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from pipeline.rebuild import file_differences
from pipeline.rebuild.file_differences import Difference


@pytest.fixture
def differ(tmp_path: Path):
    """Compares two files that are written by functions of their path."""

    def compare(name, was, now, kind="engine") -> Difference:
        for place, write in (("was", was), ("now", now)):
            path = tmp_path / place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if write is not None:
                write(path)
        return file_differences.file(kind, name, tmp_path / "was" / name, tmp_path / "now" / name)

    return compare


def tensors(**values):
    return lambda path: save_file({name: np.array(value, np.float32) for name, value in values.items()}, path)


def archive(stamp, **members):
    def write(path) -> None:
        with zipfile.ZipFile(path, "w") as made:
            for name, data in members.items():
                made.writestr(zipfile.ZipInfo(f"package/{name}", stamp), data)

    return write


def values(**said):
    return lambda path: path.write_text(json.dumps(said))


def test_weights_that_differ_are_counted_and_matter(differ):
    found = differ("rank0.safetensors", tensors(a=[1, 2], b=[3], c=[4]), tensors(a=[1, 2], b=[5], d=[4]))
    assert found.what == "3 of 4 tensors: b; c; d"
    assert found.matters
    assert "run the gate again" in found.why


def test_tensors_that_only_moved_in_the_file_are_the_same(differ):
    found = differ("rank0.safetensors", tensors(a=[1], b=[2, 3]), lambda path: path.write_bytes(_reordered()))
    assert found.what == "the same tensors; only the file's header differs"


def _reordered() -> bytes:
    header = json.dumps(
        {
            "b": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
            "a": {"dtype": "F32", "shape": [1], "data_offsets": [8, 12]},
        }
    ).encode()
    return len(header).to_bytes(8, "little") + header + np.array([2, 3, 1], np.float32).tobytes()


def test_a_broken_file_says_so(differ):
    found = differ("rank0.safetensors", tensors(a=[1]), lambda path: path.write_bytes(b"\xff"))
    assert "truncated" in found.what


def test_members_of_archives_are_compared_without_their_dates(differ):
    old, new = (2020, 1, 1, 0, 0, 0), (2026, 1, 1, 0, 0, 0)
    same = differ("stage0.pt2", archive(old, a="1", b="2"), archive(new, a="1", b="2"))
    assert same.what == "an archive of the same members; only dates or their order differ"
    other = differ("stage0.pt2", archive(old, a="1", b="2"), archive(new, a="1", b="3"))
    assert (other.what, other.matters) == ("1 of 2 members of the archive: b", False)
    assert "compiled code" in other.why


def test_values_are_told_by_their_place(differ):
    found = differ("engine.json", values(tp=1, deep={"s": [1]}), values(tp=2, deep={"s": [2]}))
    assert found.what == "tp was 1, is 2; deep.s was [1], is [2]"
    assert not found.matters
    assert differ("config.json", values(x=1), values(y=1)).matters
    assert differ("engine.json", values(x=1), lambda p: p.write_text('{ "x" :1}')).what.startswith(
        "the same values"
    )


def test_a_file_of_one_side_is_told(differ):
    assert differ("tokenizer.json", values(), None).what == "only published"
    assert differ("other.json", None, values()).what == "only in the rebuild"


def test_what_follows_is_judged_by_what_came_of_it(differ):
    found = differ("layer-00000.safetensors", tensors(a=[1]), tensors(a=[2]), kind="statistics")
    assert (found.matters, found.why) == (False, file_differences.BEFORE)
    assert not differ("tuning/a/b.so", values(a=1), values(a=2)).matters


def test_where_a_tensorrt_engine_was_built_matters_to_nobody(differ):
    def config(cache, batch=4):
        return values(build_config={"output_timing_cache": cache, "max_batch_size": batch})

    assert not differ("config.json", config("/store/1/cache"), config("/store/2/cache")).matters
    assert not differ("draft/config.json", config("/store/1/cache"), config("/store/2/cache")).matters
    assert differ("config.json", config("/store/1/cache"), config("/store/2/cache", batch=8)).matters
    assert differ("config.json", config("/store/1/cache"), None).matters


def test_by_which_of_our_rules_a_checkpoint_was_written_matters_to_nobody(differ):
    def config(version, excluded=()):
        return values(
            producer={"name": "enginery", "layout_version": version},
            quantization={"exclude_modules": list(excluded)},
        )

    found = differ("config.json", config(2), config(3))
    assert (found.what, found.matters) == ("producer.layout_version was 2, is 3", False)
    assert differ("config.json", config(2), config(3, excluded=["*lm_head"])).matters


def test_long_values_are_shortened_at_whole_items(differ):
    names = ["*lm_head", "*vocab_embedding", "*position_embedding", "*block_embedding"]
    found = differ("config.json", values(names=names), values(names="x" * 100))
    assert (
        found.what
        == f"names was ['*lm_head', '*vocab_embedding', '*position_embedding', ...], is {'x' * 57}..."
    )

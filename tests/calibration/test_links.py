"""Links in directories that people name: inside, outside, in a hub cache, and put in the way meanwhile."""

import os
from pathlib import Path

import pytest

from calibration.links import LeadsOut, describe_links, leads_out, located, open_inside, open_located


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory with files at two depths; a secret stands beside it."""
    (tmp_path / "secret").write_text("private")
    model = tmp_path / "model"
    (model / "deep").mkdir(parents=True)
    (model / "deep" / "a.txt").write_text("a")
    (model / "LICENSE").write_text("free")
    return model


def read(root: Path, name: str) -> str:
    with os.fdopen(open_inside(root, name)) as file:
        return file.read()


@pytest.mark.parametrize(
    ("name", "to"),
    [
        ("LICENSE", None),
        ("deep/a.txt", None),
        ("relative", "LICENSE"),
        ("relative", "deep/../deep/a.txt"),
        ("relative", "../model/LICENSE"),
        ("absolute", "{root}/LICENSE"),
        ("folder/a.txt", "deep"),
    ],
)
def test_what_stays_inside_is_read(root: Path, name: str, to: str | None):
    if to is not None:
        (root / name.partition("/")[0]).symlink_to(to.format(root=root))
    assert describe_links(root, [name]) == ""
    assert read(root, name) in ("free", "a")


@pytest.mark.parametrize(
    ("name", "to"),
    [
        ("link", "../secret"),
        ("link", "{root}/../secret"),
        ("link", "hop"),
        ("link", "../nothing"),
        ("link", "/dev/zero"),
        ("link", "/proc/self/environ"),
        ("folder/secret", ".."),
        ("../secret", None),
        ("link", "."),
    ],
)
def test_what_leads_out_is_neither_named_as_fine_nor_opened(root: Path, name: str, to: str | None):
    (root / "hop").symlink_to("../secret")
    if to is not None:
        (root / name.partition("/")[0]).symlink_to(to.format(root=root))
    assert f"{root}: a link leads out of it: {name} -> " in describe_links(root, [name])
    with pytest.raises(LeadsOut, match="a link leads out"):
        open_inside(root, name)


def test_the_directory_itself_may_be_a_link(root: Path):
    latest = root.with_name("latest")
    latest.symlink_to("model")
    assert read(latest, "LICENSE") == "free"
    (root / "link").symlink_to("../secret")
    assert leads_out(latest, "link") == root.with_name("secret").resolve()


def test_loops_and_links_to_nothing_end(root: Path):
    (root / "loop").symlink_to("loop")
    (root / "dangling").symlink_to("nothing")
    for name in ("loop", "dangling"):
        assert describe_links(root, [name]) == ""
        with pytest.raises(OSError, match=r"Too many levels|No such file"):
            open_inside(root, name)


def test_a_message_names_the_first_few_and_counts_the_rest(root: Path):
    for number in range(7):
        (root / f"f{number}").symlink_to("../secret")
    said = describe_links(root, [f"f{number}" for number in range(7)])
    assert said.startswith(f"{root}: 7 links lead out of it: f0 -> ")
    assert " and 4 more; " in said
    assert "f3" not in said
    assert "cp -rL" in said


def cached(tmp_path: Path) -> Path:
    """A snapshot in a hub cache, as huggingface_hub makes one."""
    repo = tmp_path / "hub" / "models--acme--tiny"
    snapshot = repo / "snapshots" / ("a" * 40)
    (snapshot / "sub").mkdir(parents=True)
    (repo / "blobs").mkdir()
    (repo / "blobs" / "b1").write_text("blob")
    (snapshot / "config.json").symlink_to("../../blobs/b1")
    (snapshot / "sub" / "config.json").symlink_to("../../../blobs/b1")
    return snapshot


def test_a_snapshot_of_a_hub_cache_leads_to_its_own_blobs_only(tmp_path: Path):
    snapshot = cached(tmp_path)
    assert read(snapshot, "config.json") == "blob"
    assert read(snapshot / "sub", "config.json") == "blob"
    blobs, other = snapshot.parents[1] / "blobs", tmp_path / "hub" / "models--acme--other" / "blobs"
    other.mkdir(parents=True)
    (other / "b2").write_text("theirs")
    (tmp_path / "secret").write_text("private")
    (blobs / "hop").symlink_to(tmp_path / "secret")
    for number, to in enumerate((other / "b2", blobs / "hop", snapshot.parents[1] / "refs", tmp_path)):
        (snapshot / f"l{number}").symlink_to(to)
        with pytest.raises(LeadsOut):
            open_inside(snapshot, f"l{number}")


def test_blobs_that_are_elsewhere_are_no_blobs(tmp_path: Path):
    snapshot = cached(tmp_path)
    blobs = snapshot.parents[1] / "blobs"
    blobs.rename(tmp_path / "private")
    blobs.symlink_to(tmp_path / "private")
    with pytest.raises(LeadsOut):
        open_inside(snapshot, "config.json")


@pytest.mark.parametrize("swapped", ["deep/a.txt", "deep"])
def test_a_link_put_in_the_way_after_the_look_is_not_followed(root: Path, swapped: str):
    outside = root.with_name("outside")
    outside.mkdir()
    (outside / "a.txt").write_text("private")
    found = located(root, "deep/a.txt")
    (root / swapped).rename(root / "aside")
    (root / swapped).symlink_to(outside if swapped == "deep" else outside / "a.txt")
    with pytest.raises(OSError, match=r"Too many levels|Not a directory"):
        open_located(*found)

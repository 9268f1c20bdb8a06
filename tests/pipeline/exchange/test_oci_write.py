"""OCI image layouts in the ModelPack format, written, read by the rules of the format, and taken back."""

import gzip
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from artifacts.client import Client
from artifacts.errors import ArtifactCorrupt, DestinationTaken, NotFound, StoreUnusable
from pipeline.errors import ExchangeRefused
from pipeline.exchange import exchange, modelpack, oci_write
from pipeline.exchange.oci_read import survey, unpack
from pipeline.exchange.pushed_content import content
from pipeline.exchange.target import Layout
from pipeline.process.host import Host
from tests.checkpoints import checkpoint
from tests.pipeline.exchange.conftest import NAME

CONFIG_FIELDS = {
    "descriptor": {"createdAt", "name", "version", "sourceURL", "revision", "licenses", "description"},
    "config": {"architecture", "format", "precision", "quantization", "capabilities"},
    "modelfs": {"type", "diffIds"},
}
"""Fields of ours, each one of the specification's."""


def blob(layout, descriptor):
    data = (layout / "blobs" / "sha256" / descriptor["digest"].removeprefix("sha256:")).read_bytes()
    assert (len(data), f"sha256:{hashlib.sha256(data).hexdigest()}") == (
        descriptor["size"],
        descriptor["digest"],
    )
    return data


def manifest_of(layout: Path, number: int = 0):
    assert json.loads((layout / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    return json.loads(blob(layout, json.loads((layout / "index.json").read_text())["manifests"][number]))


def put(layout, data) -> dict[str, Any]:
    """Adds a blob; returns its descriptor without a type."""
    home = layout / "blobs" / "sha256"
    home.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(data).hexdigest()
    (home / digest).write_bytes(data)
    return {"digest": f"sha256:{digest}", "size": len(data)}


def lay(layout, layers, **changes):
    """Writes a layout of one manifest over these layers."""
    manifest = {"schemaVersion": 2, "artifactType": modelpack.ARTIFACT_TYPE, "layers": layers, **changes}
    index = {"schemaVersion": 2, "manifests": [put(layout, json.dumps(manifest).encode())]}
    (layout / "index.json").write_text(json.dumps(index))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return layout


def raw(layout, name, data) -> dict[str, Any]:
    return put(layout, data) | {"mediaType": modelpack.WEIGHT, "annotations": {modelpack.FILEPATH: name}}


def taken(layout, target):
    target.mkdir()
    unpack(survey(Layout(layout)), target)
    return {
        path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*") if path.is_file()
    }


def test_a_layout_is_of_the_format_and_its_layers_are_the_files(client: Client, tmp_path: Path):
    pushed = exchange.push(f"{NAME}@prod", f"oci:{tmp_path / 'layout'}", client, None)
    manifest = manifest_of(tmp_path / "layout")
    assert manifest["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    assert manifest["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert manifest["config"]["mediaType"] == "application/vnd.cncf.model.config.v1+json"
    config = json.loads(blob(tmp_path / "layout", manifest["config"]))
    assert {name: set(fields) for name, fields in config.items()} == CONFIG_FIELDS
    assert config["descriptor"]["licenses"] == ["apache-2.0"]
    assert config["modelfs"]["diffIds"] == [layer["digest"] for layer in manifest["layers"]]
    client.pull(NAME, tmp_path / "pulled")
    for layer in manifest["layers"]:
        name = layer["annotations"]["org.cncf.model.filepath"]
        assert blob(tmp_path / "layout", layer) == (tmp_path / "pulled" / name).read_bytes()
    types = {
        layer["annotations"]["org.cncf.model.filepath"]: layer["mediaType"] for layer in manifest["layers"]
    }
    assert types["rank0.engine"] == "application/vnd.cncf.model.weight.v1.raw"
    assert types["tokenizer/tokenizer.json"] == "application/vnd.cncf.model.weight.config.v1.raw"
    assert pushed.where == f"oci:{tmp_path / 'layout'}:team-tiny_fp8-1"
    assert not list(tmp_path.glob(".*"))


def test_a_version_has_one_digest_wherever_it_is_written(client: Client, tmp_path: Path):
    first, again = (
        exchange.push(NAME, f"oci:{tmp_path / name}", client, None).facts["digest"] for name in ("one", "two")
    )
    assert first == again
    assert exchange.push(NAME, f"oci:{tmp_path / 'one'}", client, None).facts["digest"] == first
    assert len(json.loads((tmp_path / "one" / "index.json").read_text())["manifests"]) == 1


def test_two_parts_share_a_layout_and_a_tag_is_never_moved(client: Client, tmp_path: Path):
    exchange.push(NAME, f"oci:{tmp_path / 'both'}:v1", client, "engine")
    exchange.push(NAME, f"oci:{tmp_path / 'both'}:v1-hf", client, "checkpoint")
    index = json.loads((tmp_path / "both" / "index.json").read_text())["manifests"]
    assert [one["annotations"][modelpack.TAGGED] for one in index] == ["v1", "v1-hf"]
    with pytest.raises(DestinationTaken, match=r"has 'v1' already, as sha256:.*; give another tag"):
        exchange.push(NAME, f"oci:{tmp_path / 'both'}:v1", client, "checkpoint")
    with pytest.raises(ExchangeRefused, match=r"2 manifests; name one by its tag.*v1, v1-hf"):
        survey(Layout(tmp_path / "both"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(DestinationTaken, match="not an OCI image layout"):
        exchange.push(NAME, f"oci:{tmp_path / 'full'}", client, None)


def test_a_file_longer_than_a_layer_is_cut_and_joined(client: Client, tmp_path: Path):
    what = content(client.resolve(NAME), "checkpoint", client)
    oci_write.write_layout(what, client, Layout(tmp_path / "cut"), layer_bytes=10_000)
    manifest, name = manifest_of(tmp_path / "cut"), "model-00001-of-00002.safetensors"
    parts = [one for one in manifest["layers"] if one["annotations"].get(modelpack.FILE) == name]
    whole = client.store.file(what.manifest.key, name).read_bytes()
    assert len(parts) == -(-len(whole) // 10_000) > 1
    assert max(layer["size"] for layer in manifest["layers"]) == 10_000
    assert b"".join(blob(tmp_path / "cut", part) for part in parts) == whole
    assert taken(tmp_path / "cut", tmp_path / "back")[name] == whole
    layers = manifest["layers"]
    first, second = (layers.index(part) for part in parts[:2])
    layers[first], layers[second] = layers[second], layers[first]
    with pytest.raises(ArtifactCorrupt, match="of its joined parts"):
        taken(lay(tmp_path / "cut", layers), tmp_path / "swapped")


def test_a_damaged_engine_is_not_pushed(client: Client, tmp_path: Path):
    file = client.store.path(client.resolve(NAME).engine_key) / "rank0.engine"
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[::-1])
    with pytest.raises(ArtifactCorrupt, match=r"rank0\.engine"):
        exchange.push(NAME, f"oci:{tmp_path / 'layout'}", client, None)
    assert not (tmp_path / "layout").exists()


def test_a_changed_blob_is_an_error_that_names_it(client: Client, tmp_path: Path):
    exchange.push(NAME, f"oci:{tmp_path / 'layout'}", client, None)
    layer = manifest_of(tmp_path / "layout")["layers"][0]
    path = tmp_path / "layout" / "blobs" / "sha256" / layer["digest"].removeprefix("sha256:")
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(ArtifactCorrupt, match=path.name):
        taken(tmp_path / "layout", tmp_path / "back")
    path.unlink()
    with pytest.raises(ArtifactCorrupt, match=f"{path.name} is missing"):
        taken(tmp_path / "layout", tmp_path / "again")


@pytest.mark.parametrize("name", ["../out", "/etc/passwd", "a/../../b", "", "a//b"])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str):
    layout = tmp_path / "layout"
    with pytest.raises(ExchangeRefused, match="nothing was imported"):
        taken(lay(layout, [raw(layout, *ENGINE), raw(layout, name, b"x")]), tmp_path / "t")
    assert not (tmp_path / "out").exists()


def test_a_file_in_two_layers_is_refused(tmp_path: Path):
    layout = tmp_path / "layout"
    with pytest.raises(ExchangeRefused, match="in two layers"):
        taken(lay(layout, [raw(layout, "a", b"1"), raw(layout, "a", b"2")]), tmp_path / "t")


def test_an_archive_is_no_part_of_a_file(tmp_path: Path):
    layout = tmp_path / "layout"
    part = {"mediaType": GZIP, "annotations": {modelpack.FILE: "a", modelpack.FILE_SHA: "0"}}
    layers = [put(layout, archive(("a", data))) | part for data in (b"1", b"2")]
    with pytest.raises(ExchangeRefused, match="in two layers"):
        survey(Layout(lay(layout, layers)))


def test_an_image_that_is_no_model_is_refused(tmp_path: Path):
    layout = tmp_path / "layout"
    with pytest.raises(ExchangeRefused, match="artifactType is None; only ModelPack"):
        taken(lay(layout, [], artifactType=None), tmp_path / "t")
    zstd = raw(layout, "a", b"x") | {"mediaType": "application/vnd.cncf.model.weight.v1.tar+zstd"}
    with pytest.raises(ExchangeRefused, match=r"tar\+zstd.*only files"):
        taken(lay(layout, [zstd]), tmp_path / "z")
    with pytest.raises(ExchangeRefused, match="not an OCI image layout"):
        survey(Layout(tmp_path))


ENGINE = ("engine.json", b"{}")
TAR, GZIP = (f"application/vnd.cncf.model.weight.v1.tar{end}" for end in ("", "+gzip"))


def archive(*members, mode="w:gz", **links) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode=mode) as tar:
        for name, data in (ENGINE, *members):
            about = tarfile.TarInfo(name)
            about.size = len(data)
            tar.addfile(about, io.BytesIO(data))
        for name, to in links.items():
            about = tarfile.TarInfo(name)
            about.type, about.linkname = tarfile.SYMTYPE, to
            tar.addfile(about)
    return held.getvalue()


def packed(layout: Path, data: bytes, kind=GZIP):
    return lay(layout, [put(layout, data) | {"mediaType": kind}])


def test_archives_of_other_tools_are_read_and_kept_inside(tmp_path: Path):
    files = (("./config.json", b"{}"), ("deep/a.txt", b"a"))
    for number, (mode, kind) in enumerate({"w:gz": GZIP, "w:": TAR}.items()):
        layout = packed(tmp_path / f"l{number}", archive(*files, mode=mode), kind)
        found = taken(layout, tmp_path / f"good{number}")
        assert found == {"config.json": b"{}", "deep/a.txt": b"a", "engine.json": b"{}"}
    for number, bad in enumerate(
        [archive(("../x", b"x")), archive(("/x", b"x")), archive(link="/etc/passwd")]
    ):
        with pytest.raises(ExchangeRefused):
            taken(packed(tmp_path / "layout", bad), tmp_path / str(number))
        assert not any((tmp_path / str(number)).iterdir())
    assert not (tmp_path / "x").exists()


def sparse(name: str, size: int) -> bytes:
    """A member in GNU's sparse form, all of it a hole."""
    about = tarfile.TarInfo(name)
    about.type, about.size = tarfile.GNUTYPE_SPARSE, 0
    header = bytearray(about.tobuf(tarfile.GNU_FORMAT))
    header[386:398] = b"%011o " % 0
    header[398:410] = b"%011o " % 0
    header[483:495] = b"%011o " % size
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def zeros(name: str, size: int) -> bytes:
    """A header that declares so many bytes, without them."""
    about = tarfile.TarInfo(name)
    about.size = size
    return about.tobuf(tarfile.GNU_FORMAT)


def extended(size: int) -> bytes:
    """An extended header of so many bytes, which tarfile would hold in memory."""
    about = tarfile.TarInfo("pax")
    about.type, about.size = tarfile.XHDTYPE, size
    return about.tobuf(tarfile.USTAR_FORMAT) + b"\0" * size


BOMBS = {
    "40 MB of zeros in 40 kB": (GZIP, archive(("a", b"\0" * (40 << 20))), r"unpack to more than 3,\d+,\d+"),
    "a hole of 1 TB": (TAR, sparse("a", 1 << 40) + b"\0" * 10240, "'a' is not a plain file"),
    "1 TB declared, not there": (TAR, zeros("a", 1 << 40) + b"\0" * 10240, "is cut off after 10,752 bytes"),
    "1 TB declared, compressed": (GZIP, gzip.compress(zeros("a", 1 << 40) + b"\0" * 9999), "unpack to more"),
    "a header of 8 MB": (GZIP, gzip.compress(extended(8 << 20)), "a header has 8,388,608 bytes"),
    "many members": (
        TAR,
        b"".join(zeros(f"d{number}/x", 0) for number in range(10_001)),
        "more than 10,000 files",
    ),
    "cut off": (GZIP, archive(("a", bytes(range(256)) * 64))[:-200], "is not a readable tar archive"),
    "no gzip": (GZIP, b"PK\3\4" * 1000, "is not a readable tar archive"),
    "names that differ by case": (GZIP, archive(("a/B", b"1"), ("A/b", b"2")), "differ only by case"),
    "a file that is a directory": (GZIP, archive(("a", b"1"), ("a/b", b"2")), "is a file and a directory"),
    "a name too long": (GZIP, archive(("a" * 300, b"1")), "more than 255 bytes"),
    "a file twice": (GZIP, archive(("a", b"1"), ("./a", b"2")), "'a' is in the archive twice"),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_before_a_byte_is_written(bomb: str, elsewhere: Client, host: Host, tmp_path: Path):
    kind, data, said = BOMBS[bomb]
    layout = packed(tmp_path / "layout", data, kind)
    with pytest.raises(ExchangeRefused, match=said) as caught:
        survey(Layout(layout))
    assert str(layout) in str(caught.value)
    with pytest.raises(ExchangeRefused, match=said):
        exchange.import_version(f"oci:{layout}", "team/x", elsewhere, host)
    assert not (elsewhere.store.root / "import").exists()


def test_a_blob_of_another_size_is_not_copied(tmp_path: Path):
    layout = tmp_path / "layout"
    declared = raw(layout, "a", b"x")
    os.truncate(layout / "blobs" / "sha256" / declared["digest"][7:], 1 << 40)
    with pytest.raises(ArtifactCorrupt, match=r"1,099,511,627,776 bytes; 1 are declared"):
        survey(Layout(lay(layout, [declared, raw(layout, *ENGINE)])))


def test_more_than_the_disk_has_is_refused_with_both_sizes(elsewhere: Client, host: Host, tmp_path: Path):
    layout, size = tmp_path / "layout", 1 << 50
    held = layout / "blobs" / "sha256" / ("0" * 64)
    held.parent.mkdir(parents=True)
    try:
        with held.open("wb") as file:
            file.truncate(size)
    except OSError:
        size = 1 << 42  # ext4 holds files of 16 TB at most
        os.truncate(held, size)
    weight = {"digest": f"sha256:{'0' * 64}", "size": size, "mediaType": modelpack.WEIGHT}
    weight["annotations"] = {modelpack.FILEPATH: "rank0.engine"}
    lay(layout, [weight, raw(layout, *ENGINE)])
    with pytest.raises(StoreUnusable, match=rf"needs {2 * (size + 2):,} bytes, and [\d,]+ are free at "):
        exchange.import_version(f"oci:{layout}", "team/x", elsewhere, host)
    assert not any((elsewhere.store.root / "import").glob("*"))


def test_of_a_checkpoint_only_what_makes_a_model_is_unpacked(tmp_path: Path):
    layout = tmp_path / "layout"
    files = checkpoint() | {"dataset/rows.bin": b"x" * 100, "run.py": b"import os"}
    found = taken(lay(layout, [raw(layout, name, data) for name, data in files.items()]), tmp_path / "t")
    assert found == checkpoint()
    with pytest.raises(ExchangeRefused, match="holds neither an engine"):
        survey(Layout(lay(layout, [raw(layout, "notes.txt", b"x")])))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"annotations": "x"}, "annotations 'x'"),
        ({"size": True}, "layer of size true"),
        ({"mediaType": "application/vnd.cncf.model.weight.v1.zip"}, "only files"),
    ],
)
def test_a_layer_that_is_none_is_refused(tmp_path: Path, changes: dict[str, Any], said: str):
    layout = tmp_path / "layout"
    with pytest.raises(ExchangeRefused, match=said):
        survey(Layout(lay(layout, [raw(layout, "a", b"x") | changes])))


def test_an_engine_comes_back_as_imported_and_unverified(
    client: Client, elsewhere: Client, host: Host, tmp_path: Path
):
    exchange.push(NAME, f"oci:{tmp_path / 'layout'}", client, None)
    made = exchange.import_version(f"oci:{tmp_path / 'layout'}", "team/theirs", elsewhere, host)
    record = elsewhere.resolve("team/theirs:1")
    assert (record.verdict, record.origin, record.engine_key) == ("UNVERIFIED", "imported", made.key)
    assert record.source["licence"] == "apache-2.0"
    assert record.source["imported"]["claims"]["name"] == NAME
    ours, theirs = client.store.manifest(client.resolve(NAME).engine_key), elsewhere.store.manifest(made.key)
    assert theirs.files == ours.files
    assert exchange.import_version(f"oci:{tmp_path / 'layout'}", "team/theirs", elsewhere, host).number == 1
    with pytest.raises(NotFound):
        elsewhere.resolve("team/theirs@prod")
    assert not any(Path(elsewhere.store.root / "import").glob("*"))

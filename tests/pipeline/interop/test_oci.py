"""OCI image layouts in the ModelPack format, written, read by the rules of the format, and taken back."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from artifacts.errors import ArtifactCorrupt, DestinationTaken, NotFound
from pipeline.errors import ExchangeRefused
from pipeline.interop import exchange, modelpack, oci
from pipeline.interop.content import content
from pipeline.interop.target import Layout
from pipeline.interop.unpack import unpack
from tests.pipeline.interop.conftest import NAME

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


def manifest_of(layout, number=0):
    assert json.loads((layout / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    return json.loads(blob(layout, json.loads((layout / "index.json").read_text())["manifests"][number]))


def put(layout, data):
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


def raw(layout, name, data):
    return put(layout, data) | {"mediaType": modelpack.WEIGHT, "annotations": {modelpack.FILEPATH: name}}


def taken(layout, target):
    target.mkdir()
    unpack(Layout(layout), target)
    return {
        path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*") if path.is_file()
    }


def test_a_layout_is_of_the_format_and_its_layers_are_the_files(client, tmp_path):
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


def test_a_version_has_one_digest_wherever_it_is_written(client, tmp_path):
    first, again = (
        exchange.push(NAME, f"oci:{tmp_path / name}", client, None).facts["digest"] for name in ("one", "two")
    )
    assert first == again
    assert exchange.push(NAME, f"oci:{tmp_path / 'one'}", client, None).facts["digest"] == first
    assert len(json.loads((tmp_path / "one" / "index.json").read_text())["manifests"]) == 1


def test_two_parts_share_a_layout_and_a_tag_is_never_moved(client, tmp_path):
    exchange.push(NAME, f"oci:{tmp_path / 'both'}:v1", client, "engine")
    exchange.push(NAME, f"oci:{tmp_path / 'both'}:v1-hf", client, "checkpoint")
    index = json.loads((tmp_path / "both" / "index.json").read_text())["manifests"]
    assert [one["annotations"][modelpack.TAGGED] for one in index] == ["v1", "v1-hf"]
    with pytest.raises(DestinationTaken, match=r"has 'v1' already, as sha256:.*; give another tag"):
        exchange.push(NAME, f"oci:{tmp_path / 'both'}:v1", client, "checkpoint")
    with pytest.raises(ExchangeRefused, match=r"2 manifests for no tag; name one: .*v1, v1-hf"):
        unpack(Layout(tmp_path / "both"), tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(DestinationTaken, match="no OCI image layout"):
        exchange.push(NAME, f"oci:{tmp_path / 'full'}", client, None)


def test_a_file_longer_than_a_layer_is_cut_and_joined(client, tmp_path):
    what = content(client.resolve(NAME), "checkpoint", client)
    oci.write_layout(what, client, Layout(tmp_path / "cut"), layer_bytes=10_000)
    manifest, name = manifest_of(tmp_path / "cut"), "model-00001-of-00002.safetensors"
    parts = [one for one in manifest["layers"] if one["annotations"].get(modelpack.FILE) == name]
    whole = client.store.file(what.manifest.key, name).read_bytes()
    assert len(parts) == -(-len(whole) // 10_000) > 1
    assert max(layer["size"] for layer in manifest["layers"]) == 10_000
    assert b"".join(blob(tmp_path / "cut", part) for part in parts) == whole
    assert taken(tmp_path / "cut", tmp_path / "back")[name] == whole
    parts[0], parts[1] = parts[1], parts[0]
    with pytest.raises(ArtifactCorrupt, match="of its joined parts"):
        taken(lay(tmp_path / "cut", parts), tmp_path / "swapped")


def test_a_damaged_engine_is_not_pushed(client, tmp_path):
    file = client.store.path(client.resolve(NAME).engine_key) / "rank0.engine"
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[::-1])
    with pytest.raises(ArtifactCorrupt, match=r"rank0\.engine"):
        exchange.push(NAME, f"oci:{tmp_path / 'layout'}", client, None)
    assert not (tmp_path / "layout").exists()


def test_a_changed_blob_is_an_error_that_names_it(client, tmp_path):
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
def test_a_name_that_leads_elsewhere_is_refused(tmp_path, name):
    layout = tmp_path / "layout"
    with pytest.raises(ExchangeRefused, match="nothing of this model is taken"):
        taken(lay(layout, [raw(layout, name, b"x")]), tmp_path / "t")
    assert not (tmp_path / "out").exists()


def test_a_file_in_two_layers_is_refused(tmp_path):
    layout = tmp_path / "layout"
    with pytest.raises(ExchangeRefused, match="in two layers"):
        taken(lay(layout, [raw(layout, "a", b"1"), raw(layout, "a", b"2")]), tmp_path / "t")


def test_an_image_that_is_no_model_is_refused(tmp_path):
    layout = tmp_path / "layout"
    with pytest.raises(ExchangeRefused, match="artifactType is None; only ModelPack"):
        taken(lay(layout, [], artifactType=None), tmp_path / "t")
    zstd = raw(layout, "a", b"x") | {"mediaType": "application/vnd.cncf.model.weight.v1.tar+zstd"}
    with pytest.raises(ExchangeRefused, match=r"tar\+zstd.*only files"):
        taken(lay(layout, [zstd]), tmp_path / "z")
    with pytest.raises(ExchangeRefused, match="no OCI image layout"):
        unpack(Layout(tmp_path), tmp_path)


def archive(*members, **links):
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz") as tar:
        for name, data in members:
            about = tarfile.TarInfo(name)
            about.size = len(data)
            tar.addfile(about, io.BytesIO(data))
        for name, to in links.items():
            about = tarfile.TarInfo(name)
            about.type, about.linkname = tarfile.SYMTYPE, to
            tar.addfile(about)
    return held.getvalue()


def test_archives_of_other_tools_are_read_and_kept_inside(tmp_path):
    layout, tar = tmp_path / "layout", "application/vnd.cncf.model.weight.v1.tar+gzip"
    good = put(layout, archive(("./config.json", b"{}"), ("deep/a.txt", b"a"))) | {"mediaType": tar}
    assert taken(lay(layout, [good]), tmp_path / "good") == {"config.json": b"{}", "deep/a.txt": b"a"}
    for number, bad in enumerate(
        [archive(("../x", b"x")), archive(("/x", b"x")), archive(link="/etc/passwd")]
    ):
        with pytest.raises(ExchangeRefused):
            taken(lay(layout, [put(layout, bad) | {"mediaType": tar}]), tmp_path / str(number))
    assert not (tmp_path / "x").exists()


def test_an_engine_comes_back_as_imported_and_unverified(client, elsewhere, host, tmp_path):
    exchange.push(NAME, f"oci:{tmp_path / 'layout'}", client, None)
    made = exchange.take(f"oci:{tmp_path / 'layout'}", "team/theirs", elsewhere, host)
    record = elsewhere.resolve("team/theirs:1")
    assert (record.verdict, record.origin, record.engine_key) == ("UNVERIFIED", "imported", made.key)
    assert record.source["licence"] == "apache-2.0"
    assert record.source["imported"]["claims"]["name"] == NAME
    ours, theirs = client.store.manifest(client.resolve(NAME).engine_key), elsewhere.store.manifest(made.key)
    assert theirs.files == ours.files
    assert exchange.take(f"oci:{tmp_path / 'layout'}", "team/theirs", elsewhere, host).number == 1
    with pytest.raises(NotFound):
        elsewhere.resolve("team/theirs@prod")
    assert not any(Path(elsewhere.store.root / "import").glob("*"))

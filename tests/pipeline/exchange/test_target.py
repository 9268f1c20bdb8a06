"""Names of places outside."""

from pathlib import Path

import pytest

from pipeline.errors import ExchangeRefused
from pipeline.exchange.target import Directory, Layout, RegisteredModel, Repository, parse, parse_source

HERE = "http://127.0.0.1:5000"


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("hf:./out", Directory(Path("out"))),
        ("hf://acme/tiny", Repository("acme/tiny")),
        ("hf://acme/tiny@v2", Repository("acme/tiny", "v2")),
        ("oci:/a/b", Layout(Path("/a/b"))),
        ("oci:/a/b:v1.0", Layout(Path("/a/b"), "v1.0")),
        ("oci:/a:1/b", Layout(Path("/a:1/b"))),
        (f"mlflow:{HERE}", RegisteredModel(HERE)),
        (f"mlflow:{HERE}/#tiny", RegisteredModel(HERE, "tiny")),
        (f"mlflow:{HERE}/base#tiny/3", RegisteredModel(f"{HERE}/base", "tiny", 3)),
        (f"mlflow:{HERE}#tiny@champion", RegisteredModel(HERE, "tiny", None, "champion")),
    ],
)
def test_a_place_is_read_from_its_name(text: str, target):
    assert parse(text) == parse_source(text) == target


def test_a_plain_directory_is_a_source_and_no_target():
    assert parse_source("./engine") == Directory(Path("engine"))
    with pytest.raises(ExchangeRefused, match="give hf:DIR"):
        parse("./engine")


@pytest.mark.parametrize(
    "text",
    [
        "hf:",
        "hf://tiny",
        "hf://../../etc/passwd",
        "oci:",
        "oci:dir:bad tag",
        "oci:dir:-x",
        "mlflow:",
        "mlflow:file:///etc",
        "mlflow:http://",
        f"mlflow:{HERE}#a:b",
        f"mlflow:{HERE}#a\nb",
        "s3://bucket",
    ],
)
def test_what_names_no_place_is_refused(text: str):
    with pytest.raises(ExchangeRefused):
        parse(text)


@pytest.mark.parametrize(
    "text", ["mlflow:http://me:hush@host", "mlflow:http://hush@host", "mlflow:http://host/?t=hush"]
)
def test_a_secret_in_an_address_is_refused_and_not_repeated(text: str):
    with pytest.raises(ExchangeRefused, match="MLFLOW_TRACKING_TOKEN") as caught:
        parse(text)
    assert "hush" not in str(caught.value)

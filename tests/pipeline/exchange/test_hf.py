"""Hugging Face layouts: what is in them, the card, and the way back."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from artifacts.client import Client
from artifacts.errors import ArtifactCorrupt, DestinationTaken
from artifacts.registry.registry import Request
from artifacts.version import Metric
from pipeline.errors import ExchangeRefused
from pipeline.exchange import exchange
from pipeline.exchange.hf import front_matter
from pipeline.exchange.model_card import card
from pipeline.exchange.pushed_content import content
from pipeline.pages.card import card_markdown
from pipeline.pages.card.card_reader import card_of
from pipeline.process.host import Host
from tests.odd import MANY_ALIASES
from tests.pipeline.exchange.conftest import NAME


def names(directory):
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*"))


def test_a_layout_holds_what_loaders_want_and_the_papers_of_the_source(client: Client, tmp_path: Path):
    exchange.push(NAME, f"hf:{tmp_path / 'repo'}", client, None)
    assert names(tmp_path / "repo") == [
        "LICENSE",
        "README.md",
        "additional_chat_templates",
        "additional_chat_templates/tool_use.jinja",
        "config.json",
        "hf_quant_config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    with pytest.raises(DestinationTaken):
        exchange.push(NAME, f"hf:{tmp_path / 'repo'}", client, None)


def test_the_card_has_front_matter_and_no_place_of_this_machine(client: Client):
    text = card(content(client.resolve(NAME), "checkpoint", client))
    front = yaml.safe_load(text.split("---\n")[1])
    assert front == {
        "license": "apache-2.0",
        "base_model": "acme/tiny",
        "base_model_relation": "quantized",
        "pipeline_tag": "text-generation",
        "library_name": "transformers",
        "tags": ["enginery", "modelopt", "fp8"],
    }
    assert "| token KL divergence, nats | 0.012 | 0.011 to 0.013 | 0.1 | PASS |" in text
    assert "tokens_per_s" not in text
    assert "somebody" not in text
    assert "path: tiny" in text


def test_the_card_says_what_the_engine_card_says(client: Client):
    until = datetime.now(UTC) + timedelta(days=1)
    client.registry.waive(
        Request(name=NAME, number=1, alias="prod", rule="max_age_days", reason="agreed", until=until)
    )
    record = client.resolve(NAME)
    pushed = card(content(record, "engine", client))
    ours = card_markdown.card(card_of(record, client.registry, client.store))
    said = [line for line in ours.splitlines() if line.startswith(("> ", "| "))]
    lines = [line for line in said if "somebody" not in line]
    kept = [line for line in lines if line in pushed]
    assert "> **info**: not signed  " in kept
    assert any("max_age_days waived for @prod until" in line and "agreed" in line for line in kept)
    assert {"| token KL divergence, nats | 0.012 | 0.011 to 0.013 | 0.1 | PASS |", "| origin | built |"} <= {
        *kept
    }
    assert pushed.count("\n> ") == ours.count("\n> ")


def test_hostile_words_do_not_leave_their_place_in_the_card(client: Client):
    record = client.resolve(NAME)
    for field in ("model", "published_by"):
        object.__setattr__(record, field, "x\n# <script>alert(1)</script> | [a](b)\x1b[31m")
    object.__setattr__(record, "source", {"licence": "mit\n---\n# gone"})
    object.__setattr__(record, "recipe", {"format": "fp8", "name": "```\n# out"})
    object.__setattr__(record, "metrics", (Metric("kl", 0.1),))
    text = card(content(record, "checkpoint", client))
    assert yaml.safe_load(text[4 : text.index("\n---\n", 4)])["license"] == "mit\n---\n# gone"
    body = text[text.index("# team") :]
    assert "<script" not in body
    assert "\x1b" not in body
    assert "````yaml" in body
    assert next(line for line in body.splitlines() if line.startswith("# ")).startswith("# team/tiny_fp8")


def test_a_checkpoint_comes_back_and_can_be_resharded_by_name(
    client: Client, elsewhere: Client, host: Host, tmp_path: Path
):
    from pipeline.run.resharding import find

    exchange.push(NAME, f"hf:{tmp_path / 'repo'}", client, None)
    made = exchange.import_version(str(tmp_path / "repo"), "team/ckpt", elsewhere, host)
    record = elsewhere.resolve("team/ckpt")
    assert (made.found.kind, record.facts["backend"], record.facts["format"]) == (
        "quantized_checkpoint",
        "checkpoint",
        "fp8",
    )
    assert (record.model, record.source["licence"]["id"]) == ("acme/tiny", "Apache-2.0")
    assert find("team/ckpt", elsewhere.store, lambda: elsewhere.registry).path == elsewhere.store.path(
        made.key
    )
    exchange.push("team/ckpt", f"hf:{tmp_path / 'again'}", elsewhere, None)
    assert names(tmp_path / "again") == names(tmp_path / "repo")
    weights = "model-00001-of-00002.safetensors"
    assert (tmp_path / "again" / weights).read_bytes() == (tmp_path / "repo" / weights).read_bytes()


def test_a_damaged_checkpoint_is_not_pushed(client: Client, tmp_path: Path):
    key = client.resolve(NAME).lineage["quantized_checkpoint"]
    file = client.store.path(key) / "tokenizer.json"
    file.chmod(0o644)
    file.write_text('{"model": []}')
    with pytest.raises(ArtifactCorrupt, match=r"tokenizer\.json has sha256"):
        exchange.push(NAME, f"hf:{tmp_path / 'repo'}", client, None)
    assert not (tmp_path / "repo").exists()


def test_a_version_without_a_checkpoint_says_what_it_has(client: Client, tmp_path: Path):
    record = client.resolve(NAME)
    record.lineage.clear()
    with pytest.raises(ExchangeRefused, match="--part engine"):
        content(record, "checkpoint", client)
    assert json.loads(
        client.store.file(content(record, "engine", client).manifest.key, "engine.json").read_text()
    )


@pytest.mark.parametrize(
    ("front", "said"),
    [
        ("released: 2021-02-29", {"released": "2021-02-29"}),
        ("a: &a [*a]", {}),
        (MANY_ALIASES, {}),
        ("a: !!int x", {}),
    ],
)
def test_a_card_says_nothing_where_it_cannot_be_read_whole(tmp_path: Path, front: str, said: dict[str, Any]):
    (tmp_path / "README.md").write_text(f"---\n{front}\n---\n")
    assert front_matter(tmp_path) == said

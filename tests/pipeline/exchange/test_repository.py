"""Commits on a hub, by the command line, and checkpoints from one."""

import json
from pathlib import Path
from typing import Any

from artifacts.client import Client
from pipeline.exchange import exchange
from tests import hub as hubs
from tests.callables import Cli
from tests.checkpoints import checkpoint, held
from tests.pipeline.exchange.conftest import NAME
from tests.servers import hub_upload


def test_a_checkpoint_is_committed_with_its_card(client: Client, cli: Cli, tmp_path: Path):
    with hub_upload.serve() as hub:
        env: dict[str, Any] = {
            "HF_ENDPOINT": hub.address,
            "HF_TOKEN": "hf_hush",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HOME": str(tmp_path),
        }
        done = cli(
            "--store",
            client.store.root,
            "--json",
            "registry",
            "push",
            f"{NAME}@prod",
            "hf://team/tiny-fp8",
            **env,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["where"] == f"{hub.address}/team/tiny-fp8/commit/{hub_upload.COMMIT}"
        assert (hub.private, hub.message) == ({"team/tiny-fp8": True}, f"{NAME}:1 by enginery")
        exchange.push(NAME, f"hf:{tmp_path / 'repo'}", client, None)
        assert hub.files == held(tmp_path / "repo")
        assert "Bearer hf_hush" in hub.tokens
        assert not any((client.store.root / "push").glob("*"))
        assert not list(client.store.root.glob(".push*"))

        hub.refuse = 403
        refused = cli("--store", client.store.root, "registry", "push", NAME, "hf://team/other", **env)
        assert refused.returncode == 1
        assert "hf://team/other: the hub answers HTTP 403; check the name" in refused.stderr
        assert "hush" not in refused.stderr + refused.stdout


def test_a_checkpoint_comes_from_a_hub(elsewhere: Client, cli: Cli):
    with hubs.serve(checkpoint()) as hub:
        source = f"hf://{hubs.REPO}@{hubs.COMMIT}"
        args = ("--store", elsewhere.store.root, "--json", "registry", "import", source, "team/tiny")
        done = cli(*args, HF_ENDPOINT=hub.address)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["kind"] == "source"
    record = elsewhere.resolve("team/tiny")
    assert record.source["imported"] == {"from": source, "revision": hubs.COMMIT}
    files = elsewhere.store.manifest(record.engine_key).files
    assert set(files) == set(checkpoint())

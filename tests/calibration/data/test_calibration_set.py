import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from calibration.errors import CheckpointError, DataError
from tests.calibration.data.written import KINDS, files_of, write
from tests.jobs import build_calibration_set as build

CHAT = [{"role": "user", "content": "read the recipe"}, {"role": "model", "content": "reads"}]


def source_of(path, **changes):
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    plain = {"digests": [digest], "samples": "all", "columns": {}, "bad_rows": 0, "kind": path.suffix[1:]}
    return plain | changes


def job(checkpoint, *files, **params) -> dict[str, Any]:
    data = params.pop("data", None) or [source_of(file) for file in files]
    settings = {
        "data": data,
        "seq_len": 16,
        "max_sequences": "all",
        "seed": 0,
        "pack": True,
        "truncate": "right",
    }
    settings |= params
    return {
        "params": settings,
        "places": {"files": [[str(f)] for f in files]},
        "inputs": {"source": str(checkpoint)},
    }


def built(tmp_path: Path, made_job):
    seen = []
    out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
    out.mkdir()
    build(made_job, out, lambda *event: seen.append(event))
    assert seen[-1][0] == seen[-1][1] > 0
    report = json.loads((out / "report.json").read_text())
    samples = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    return load_file(out / "tokens.safetensors")["tokens"], report, samples, out


def decoded(checkpoint: Path, tokens):
    from transformers import AutoTokenizer  # the module under test has loaded it

    return AutoTokenizer.from_pretrained(checkpoint).decode(tokens.flatten().tolist())


def test_text_rows_become_packed_sequences_that_say_where_they_came_from(
    tmp_path: Path, checkpoint: Path, texts: Path
):
    tokens, report, samples, out = built(tmp_path, job(checkpoint, texts))
    assert (tokens.dtype, tokens.shape) == ("int32", (report["sequences"], 16))
    assert sorted(sample["line"] for sample in samples) == list(range(1, 41))
    assert {sample["file"] for sample in samples} == {"texts.jsonl"}
    total = sum(sample["tokens"] for sample in samples)
    assert total == report["sample_tokens"]
    assert (tokens[:, 0] == 1).all()
    assert report["sequences_begin_with"] == {"tokens": "<s>", "sequences": len(tokens)}
    assert sum(report["sample_length_histogram"].values()) == report["samples"] == 40
    first = json.loads(texts.read_text().splitlines()[samples[0]["line"] - 1])["text"]
    assert decoded(checkpoint, tokens).startswith(f"<s>{first}")
    shown = [text for text, _ in report["first_sequence"]]
    assert "".join(shown).startswith(f"<s>{first}"[: len("".join(shown))])
    assert str(tmp_path) not in (out / "samples.jsonl").read_text() + (out / "report.json").read_text()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(
    tmp_path: Path, checkpoint: Path, texts: Path
):
    names = ("tokens.safetensors", "samples.jsonl", "report.json", "page.html")
    runs = [built(tmp_path, job(checkpoint, texts, seed=seed))[3] for seed in (1, 1, 2)]
    first, again, other = ([(run / name).read_bytes() for name in names] for run in runs)
    assert first == again
    assert first[0] != other[0]


@pytest.mark.slow
def test_messages_go_through_the_chat_template_which_brings_its_own_bos(tmp_path: Path, checkpoint: Path):
    path = tmp_path / "chat.jsonl"
    path.write_text(json.dumps({"messages": CHAT}) + "\n")
    tokens, *_ = built(tmp_path, job(checkpoint, path, seq_len=8, max_sequences=1))
    assert decoded(checkpoint, tokens).startswith("<s><|user|>")
    assert (tokens == 1).sum() == 1
    tokens, *_ = built(
        tmp_path,
        job(
            checkpoint,
            path,
            seq_len=4,
            data=[source_of(path, template="{{ messages[1].content }} on and on")],
        ),
    )
    assert decoded(checkpoint, tokens).startswith("<s>reads on")


def test_sources_are_blended_and_sampled(tmp_path: Path, checkpoint: Path, texts: Path):
    plain = tmp_path / "plain.txt"
    plain.write_text("\n\n".join(f"paragraph number {i} of the text" for i in range(10)))
    data = [source_of(texts, samples=5), source_of(plain, samples=3)]
    _, report, samples, _ = built(tmp_path, job(checkpoint, texts, plain, data=data))
    assert [(s["file"], s["rows"], s["taken"]) for s in report["sources"]] == [
        ("texts.jsonl", 40, 5),
        ("plain.txt", 10, 3),
    ]
    assert sorted(sample["file"] for sample in samples) == ["plain.txt"] * 3 + ["texts.jsonl"] * 5


def test_max_sequences_keeps_that_many_and_counts_the_rest(tmp_path: Path, checkpoint: Path, texts: Path):
    tokens, report, *_ = built(tmp_path, job(checkpoint, texts, max_sequences=3))
    assert len(tokens) == 3
    assert report["left_out_sequences"] > 0


def refused(tmp_path: Path, made_job, error, complaint: str) -> None:
    out = tmp_path / "refused"
    out.mkdir()
    with pytest.raises(error, match=complaint):
        build(made_job, out, lambda *_: None)
    assert not list(out.iterdir())


def test_a_shortage_of_rows_is_an_error(tmp_path: Path, checkpoint: Path, texts: Path):
    data = [source_of(texts, samples=41)]
    refused(
        tmp_path,
        job(checkpoint, texts, data=data),
        DataError,
        r"texts\.jsonl: 40 rows, fewer than the 41 samples wanted",
    )


def test_a_shortage_of_sequences_is_an_error(tmp_path: Path, checkpoint: Path, texts: Path):
    refused(tmp_path, job(checkpoint, texts, max_sequences=10_000), DataError, "not 10000; add data")
    (tmp_path / "refused").rmdir()
    refused(
        tmp_path,
        job(checkpoint, texts, seq_len=10_000),
        DataError,
        "make 0 whole sequences of 10000, not 1",
    )


def test_a_file_that_is_not_the_planned_one_is_refused(tmp_path: Path, checkpoint: Path, texts: Path):
    planned = job(checkpoint, texts)
    texts.write_text(texts.read_text() + '{"text": "more"}\n')
    refused(tmp_path, planned, DataError, r"texts\.jsonl: the file changed after the plan was made")


@pytest.mark.slow
def test_messages_that_the_template_refuses_name_their_line(tmp_path: Path, checkpoint: Path):
    path = tmp_path / "chat.jsonl"
    bad = [{"role": "robot", "content": "beep"}]
    path.write_text(json.dumps({"messages": CHAT}) + "\n" + json.dumps({"messages": bad}) + "\n")
    refused(
        tmp_path,
        job(checkpoint, path),
        DataError,
        r"chat\.jsonl:2: the chat template refuses .*robots may not speak",
    )


def test_messages_without_a_chat_template_are_refused(tmp_path: Path, checkpoint: Path):
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "tokenizer.json").write_bytes((checkpoint / "tokenizer.json").read_bytes())
    (bare / "config.json").write_bytes((checkpoint / "config.json").read_bytes())
    (bare / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    path = tmp_path / "chat.jsonl"
    path.write_text(json.dumps({"messages": CHAT}) + "\n")
    refused(
        tmp_path,
        job(bare, path),
        DataError,
        r"chat\.jsonl:1: chat messages, but the tokenizer has no chat template",
    )


def test_a_missing_or_broken_tokenizer_is_a_checkpoint_error(tmp_path: Path, texts: Path):
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(
        tmp_path,
        job(empty, texts),
        CheckpointError,
        "no tokenizer; the checkpoint needs one of tokenizer.json",
    )
    (tmp_path / "refused").rmdir()
    (empty / "tokenizer.json").write_text("{")
    (empty / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    (empty / "config.json").write_text('{"vocab_size": 384}')
    refused(tmp_path, job(empty, texts), CheckpointError, "transformers cannot load the tokenizer")


def chat_file(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.slow
def test_a_system_prompt_is_put_in_front_of_chats_that_have_none(tmp_path: Path, checkpoint: Path):
    own = [{"role": "system", "content": "own rule"}, *CHAT]
    path = chat_file(tmp_path / "chat.jsonl", {"messages": CHAT}, {"messages": own})
    data = [source_of(path, system="be brief")]
    tokens, *_ = built(tmp_path, job(checkpoint, path, data=data, seq_len=48, pack=False))
    text = decoded(checkpoint, tokens)
    assert text.count("<|system|>be brief</s><|user|>read") == 1
    assert text.count("<|system|>own rule</s><|user|>read") == 1
    plain = chat_file(tmp_path / "plain.jsonl", {"text": "words"})
    data = [source_of(plain, system="be brief")]
    refused(tmp_path, job(checkpoint, plain, data=data), DataError, r"plain\.jsonl:1: text, not a chat")


@pytest.mark.slow
def test_tools_reach_the_template(tmp_path: Path, checkpoint: Path):
    path = chat_file(tmp_path / "chat.jsonl", {"messages": CHAT, "tools": [{"name": "add"}]})
    template = "{% for tool in tools %}tool {{ tool.name }} {% endfor %}{{ messages[0].content }}"
    tokens, *_ = built(tmp_path, job(checkpoint, path, data=[source_of(path, template=template)], seq_len=8))
    assert decoded(checkpoint, tokens).startswith("<s>tool add")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("render", "expected"), [("auto", "<s><|user|>p</s><|assistant|>c</s>"), ("plain", "<s>p\nc")]
)
def test_prompts_and_completions_are_chats_or_joined(
    tmp_path: Path, checkpoint: Path, render: str, expected: str
):
    path = chat_file(tmp_path / "rows.jsonl", {"prompt": "p", "completion": "c"})
    data = [source_of(path, render=render)]
    tokens, *_ = built(tmp_path, job(checkpoint, path, data=data, seq_len=64, pack=False))
    assert decoded(checkpoint, tokens).startswith(expected)
    assert decoded(checkpoint, tokens).rstrip("</s>") in expected


def test_padded_rows_are_cut_on_the_side_asked_for(tmp_path: Path, checkpoint: Path, texts: Path):
    right, report, _, out = built(tmp_path, job(checkpoint, texts, pack=False, seq_len=6))
    left, *_ = built(tmp_path, job(checkpoint, texts, pack=False, seq_len=6, truncate="left"))
    lengths = load_file(out / "tokens.safetensors")["lengths"]
    assert right.shape == left.shape == (40, 6)
    assert set(lengths.tolist()) == {6}
    assert (right[:, 0] == 1).all()
    assert (left[:, 0] == 1).all()
    whole = built(tmp_path, job(checkpoint, texts, pack=False, seq_len=64))
    ends = load_file(whole[3] / "tokens.safetensors")["lengths"]
    for row, cut, end in zip(whole[0], left, ends, strict=True):
        assert cut.tolist() == [1, *row[end - 5 : end].tolist()]
    assert report["truncated"]["samples"] == 40
    assert 0 < report["truncated"]["share"] < 1
    whole, report, _, out = built(tmp_path, job(checkpoint, texts, pack=False, seq_len=64))
    lengths = load_file(out / "tokens.safetensors")["lengths"]
    assert report["tokens"] == lengths.sum() < whole.size
    assert report["truncated"]["samples"] == 0
    assert all((row[length:] == row[-1]).all() for row, length in zip(whole, lengths, strict=True))


@pytest.mark.parametrize(
    ("blend", "expected"),
    [({"samples": 20}, (15, 5)), ({"samples": 21}, (16, 5)), ({"tokens": 400}, (300, 100))],
)
def test_a_blend_is_exact_in_its_unit(
    tmp_path: Path, checkpoint: Path, texts: Path, blend: dict[str, Any], expected: tuple[int, int]
):
    plain = tmp_path / "plain.txt"
    plain.write_text("\n\n".join(f"paragraph number {i} of the text" for i in range(30)))
    made = job(checkpoint, texts, plain, blend={**blend, "weights": [3.0, 1.0]})
    tokens, report, samples, _ = built(tmp_path, made)
    unit = "taken" if "samples" in blend else "tokens"
    assert tuple(source[unit] for source in report["sources"]) == expected
    assert report["sample_tokens"] == sum(sample["tokens"] for sample in samples)
    if "tokens" in blend:
        assert tokens.size + report["dropped_tail_tokens"] >= report["sample_tokens"] == 400


@pytest.mark.parametrize(
    ("blend", "said"),
    [
        ({"samples": 100, "weights": [1.0, 1.0]}, r"texts\.jsonl: 40 rows, fewer than the 50 samples wanted"),
        (
            {"tokens": 90_000, "weights": [1.0, 1.0]},
            r"texts\.jsonl: 40 rows hold \d+ tokens, fewer than the 45000",
        ),
        ({"samples": 10, "weights": [1.0, 1e-9]}, r"plain\.txt: its weight's share of 10 is less than one"),
    ],
)
def test_a_source_too_small_for_its_share_is_named(
    tmp_path: Path, checkpoint: Path, texts: Path, blend: dict[str, Any], said: str
):
    plain = tmp_path / "plain.txt"
    plain.write_text("one\n\ntwo")
    refused(tmp_path, job(checkpoint, texts, plain, blend=blend), DataError, said)


def test_more_rows_than_one_look_suffice_for_many_tokens(tmp_path: Path, checkpoint: Path):
    path = tmp_path / "rows.txt"
    path.write_text("\n\n".join(f"row {i}" for i in range(900)))
    whole = built(tmp_path, job(checkpoint, path))[1]["sample_tokens"]
    made = job(checkpoint, path, blend={"tokens": whole - 5, "weights": [1.0]})
    _, report, samples, _ = built(tmp_path, made)
    assert report["sample_tokens"] == whole - 5
    assert len({sample["line"] for sample in samples}) == len(samples) > 890


def test_the_report_shows_what_deserves_a_look(tmp_path: Path, checkpoint: Path):
    rows = [{"text": "same words"}, {"text": "Same  words"}, {"text": "same words"}, {"text": "<s>twice"}]
    path = chat_file(tmp_path / "rows.jsonl", *rows, {"body": 1})
    data = [source_of(path, bad_rows=1)]
    _, report, _, out = built(tmp_path, job(checkpoint, path, data=data, seq_len=4))
    assert report["duplicates"]["exact"]["count"] == 1
    assert report["duplicates"]["normalised"]["count"] == 2
    assert report["special_tokens"]["bos_doubled"] == 1
    assert report["special_tokens"]["counts"] == {"<s>": 5}
    (skipped,) = report["sources"][0]["skipped"]
    assert skipped == "rows.jsonl:5: no field 'text', which the source's rows have; the row has 'body'"
    assert ["<s>", True] in report["first_sequence"]
    assert [sample["tokens"][0] for sample in report["first_samples"]] == [["<s>", True]] * 2
    said = "\n".join(report["warnings"])
    assert all(word in said for word in ("twice", "repeat another", "1 bad rows were skipped"))
    page = (out / "page.html").read_text()
    assert "rows.jsonl:5: no field" in page
    assert '<span class="special">&lt;s&gt;</span>' in page
    assert "<svg" in page
    assert "http" not in page
    assert "<s>" not in page


@pytest.mark.slow
def test_chats_without_bos_are_warned_of(tmp_path: Path, checkpoint: Path):
    path = chat_file(tmp_path / "chat.jsonl", {"messages": CHAT})
    data = [source_of(path, template="{{ messages[0].content }} and so on")]
    _, report, *_ = built(tmp_path, job(checkpoint, path, data=data, seq_len=2))
    assert report["special_tokens"]["bos_missing"] == 1
    assert "1 of 1 samples do not start with <s>" in report["warnings"][0]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "jsonl"])
def test_every_kind_of_source_gives_the_same_tokens(kind: str, tmp_path: Path, checkpoint: Path):
    rows = [{"text": f"the engine reads row {i}"} for i in range(12)]
    made = []
    for each in ("jsonl", kind):
        files = files_of(each, write(each, tmp_path / "data", rows))
        digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
        data = [{"kind": each, "digests": digests, "columns": {}, "bad_rows": 0, "samples": 9}]
        one = job(checkpoint, data=data, seq_len=8)
        one["places"]["files"] = [[str(file) for file in files]]
        tokens, report, *_ = built(tmp_path, one)
        assert report["sources"][0]["taken"] == 9
        made.append(tokens.tolist())
    assert made[0] == made[1]

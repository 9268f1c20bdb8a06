import hashlib
import json

import pytest
from safetensors.numpy import load_file

from calibration.dataset import build
from calibration.errors import CheckpointError, DataError

CHAT = [{"role": "user", "content": "read the recipe"}, {"role": "model", "content": "reads"}]


def source_of(path, **changes):
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"digest": digest, "samples": "all", "column": "auto", "kind": path.suffix[1:]} | changes


def job(checkpoint, *files, **params):
    data = params.pop("data", None) or [source_of(file) for file in files]
    settings = {"data": data, "seq_len": 16, "max_sequences": "all", "seed": 0} | params
    return {
        "params": settings,
        "places": {"files": [str(f) for f in files]},
        "inputs": {"source": str(checkpoint)},
    }


def built(tmp_path, made_job):
    seen = []
    out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
    out.mkdir()
    build(made_job, out, lambda *event: seen.append(event))
    assert seen[-1][0] == seen[-1][1] > 0
    report = json.loads((out / "report.json").read_text())
    samples = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    return load_file(out / "tokens.safetensors")["tokens"], report, samples, out


def decoded(checkpoint, tokens):
    from transformers import AutoTokenizer  # the module under test has loaded it

    return AutoTokenizer.from_pretrained(checkpoint).decode(tokens.flatten().tolist())


def test_text_rows_become_packed_sequences_that_say_where_they_came_from(tmp_path, checkpoint, texts):
    tokens, report, samples, out = built(tmp_path, job(checkpoint, texts))
    assert (tokens.dtype, tokens.shape) == ("int32", (report["sequences"], 16))
    assert sorted(sample["line"] for sample in samples) == list(range(1, 41))
    assert {sample["file"] for sample in samples} == {"texts.jsonl"}
    total = sum(sample["tokens"] for sample in samples)
    assert total == report["sample_tokens"] == tokens.size + report["dropped_tail_tokens"]
    assert sum(report["sample_length_histogram"].values()) == report["samples"] == 40
    first = json.loads(texts.read_text().splitlines()[samples[0]["line"] - 1])["text"]
    assert decoded(checkpoint, tokens).startswith(f"<s>{first}")
    assert report["first_samples"][0]["text"] == first
    assert str(tmp_path) not in (out / "samples.jsonl").read_text() + (out / "report.json").read_text()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path, checkpoint, texts):
    names = ("tokens.safetensors", "samples.jsonl", "report.json")
    runs = [built(tmp_path, job(checkpoint, texts, seed=seed))[3] for seed in (1, 1, 2)]
    first, again, other = ([(run / name).read_bytes() for name in names] for run in runs)
    assert first == again
    assert first[0] != other[0]


def test_messages_go_through_the_chat_template_which_brings_its_own_bos(tmp_path, checkpoint):
    path = tmp_path / "chat.jsonl"
    path.write_text(json.dumps({"messages": CHAT}) + "\n")
    tokens, *_ = built(tmp_path, job(checkpoint, path, seq_len=8))
    assert decoded(checkpoint, tokens).startswith("<s><|user|>read the recipe</s>")
    assert (tokens == 1).sum() == 1
    tokens, *_ = built(
        tmp_path, job(checkpoint, path, seq_len=4, template="{{ messages[1].content }} on and on")
    )
    assert decoded(checkpoint, tokens).startswith("reads on")


def test_sources_are_blended_and_sampled(tmp_path, checkpoint, texts):
    plain = tmp_path / "plain.txt"
    plain.write_text("\n\n".join(f"paragraph number {i} of the text" for i in range(10)))
    data = [source_of(texts, samples=5), source_of(plain, samples=3)]
    _, report, samples, _ = built(tmp_path, job(checkpoint, texts, plain, data=data))
    assert [(s["file"], s["rows"], s["taken"]) for s in report["sources"]] == [
        ("texts.jsonl", 40, 5),
        ("plain.txt", 10, 3),
    ]
    assert sorted(sample["file"] for sample in samples) == ["plain.txt"] * 3 + ["texts.jsonl"] * 5


def test_max_sequences_keeps_that_many_and_counts_the_rest(tmp_path, checkpoint, texts):
    tokens, report, *_ = built(tmp_path, job(checkpoint, texts, max_sequences=3))
    assert len(tokens) == 3
    assert report["left_out_sequences"] > 0


def refused(tmp_path, made_job, error, complaint):
    out = tmp_path / "refused"
    out.mkdir()
    with pytest.raises(error, match=complaint):
        build(made_job, out, lambda *_: None)
    assert not list(out.iterdir())


def test_a_shortage_of_rows_is_an_error(tmp_path, checkpoint, texts):
    data = [source_of(texts, samples=41)]
    refused(
        tmp_path,
        job(checkpoint, texts, data=data),
        DataError,
        r"texts\.jsonl:40: .* 40 rows, fewer than the 41",
    )


def test_a_shortage_of_sequences_is_an_error(tmp_path, checkpoint, texts):
    refused(tmp_path, job(checkpoint, texts, max_sequences=10_000), DataError, "10000 wanted; add data")
    (tmp_path / "refused").rmdir()
    refused(
        tmp_path,
        job(checkpoint, texts, seq_len=10_000),
        DataError,
        "make 0 whole sequences of 10000, 1 wanted",
    )


def test_a_file_that_is_not_the_planned_one_is_refused(tmp_path, checkpoint, texts):
    planned = job(checkpoint, texts)
    texts.write_text(texts.read_text() + '{"text": "more"}\n')
    refused(tmp_path, planned, DataError, r"texts\.jsonl: the file changed after the plan was made")


def test_messages_that_the_template_refuses_name_their_line(tmp_path, checkpoint):
    path = tmp_path / "chat.jsonl"
    bad = [{"role": "robot", "content": "beep"}]
    path.write_text(json.dumps({"messages": CHAT}) + "\n" + json.dumps({"messages": bad}) + "\n")
    refused(
        tmp_path,
        job(checkpoint, path),
        DataError,
        r"chat\.jsonl:2: the chat template refuses .*robots may not speak",
    )


def test_messages_without_a_chat_template_are_refused(tmp_path, checkpoint):
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "tokenizer.json").write_bytes((checkpoint / "tokenizer.json").read_bytes())
    (bare / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    path = tmp_path / "chat.jsonl"
    path.write_text(json.dumps({"messages": CHAT}) + "\n")
    refused(
        tmp_path,
        job(bare, path),
        DataError,
        r"chat\.jsonl:1: chat messages, but the tokenizer has no chat template",
    )


def test_a_missing_or_broken_tokenizer_is_a_checkpoint_error(tmp_path, texts):
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
    refused(tmp_path, job(empty, texts), CheckpointError, "the tokenizer cannot be loaded")

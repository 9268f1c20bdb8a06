"""Run with: python -m pytest tests/recipes/test_demo.py"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

import recipes.demo
from recipes.demo.demo_model import SHAPE, Training, new_model, perplexity, train
from recipes.demo.outliers import add_outliers
from recipes.demo.texts import Document, Row, long_lines, read_rows, rows_of

DEMO = Path(recipes.demo.__file__).parent
MODEL, DATA = DEMO / "model", DEMO / "data"
GOLDEN_PERPLEXITY = 9.659
"""On every eighth gate row, in bf16 on a CPU; what `train` made."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(MODEL)


@pytest.fixture(scope="module")
def loaded():
    return AutoModelForCausalLM.from_pretrained(MODEL, output_loading_info=True)


@pytest.fixture(scope="module")
def model(loaded):
    return loaded[0].eval()


@pytest.fixture(scope="module")
def gate_slice(tokenizer):
    return [tokenizer(row["text"])["input_ids"] for row in read_rows(DATA / "gate.jsonl")[::8]]


def texts_of(name: str):
    return [row["text"] for row in read_rows(DATA / f"{name}.jsonl")]


def test_transformers_finds_every_weight_it_expects_and_no_other(loaded):
    model, info = loaded
    assert type(model).__name__ == "LlamaForCausalLM"
    assert model.dtype == torch.bfloat16
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))


def test_the_shipped_config_is_the_one_the_script_trains():
    config = json.loads((MODEL / "config.json").read_text())
    assert {name: config[name] for name in SHAPE} == SHAPE
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["dtype"] == "bfloat16"


def test_the_checkpoint_fits_the_repository():
    assert sum(path.stat().st_size for path in MODEL.iterdir()) <= 10_000_000


@pytest.mark.slow
def test_gate_perplexity_is_that_of_a_trained_model(model, tokenizer, gate_slice):
    untrained = perplexity(new_model(tokenizer, seed=0).to(torch.bfloat16).eval(), gate_slice)
    trained = perplexity(model, gate_slice)
    assert untrained == pytest.approx(SHAPE["vocab_size"], rel=0.1)
    assert trained == pytest.approx(GOLDEN_PERPLEXITY, rel=0.01)


def test_splits_share_no_long_line():
    gate, calibration = long_lines(texts_of("gate")), long_lines(texts_of("calibration"))
    chats = long_lines(row["messages"][1]["content"] for row in read_rows(DATA / "calibration_chat.jsonl"))
    assert len(gate) > 1000
    assert not gate & calibration
    assert not gate & chats


def test_the_gate_text_is_large_enough_to_judge_by(tokenizer):
    assert 40_000 <= sum(len(ids) for ids in tokenizer(texts_of("gate"))["input_ids"]) <= 60_000


def test_every_block_norm_has_a_few_outlier_channels(model):
    for layer in model.model.layers:
        for norm in (layer.input_layernorm, layer.post_attention_layernorm):
            weight = norm.weight.float().abs()
            assert weight.max() / weight.median() > 10
            assert (weight > 5 * weight.median()).sum() <= 6


def test_outlier_channels_do_not_change_what_the_model_computes(tokenizer):
    model = new_model(tokenizer, seed=0).double().eval()
    ids = torch.arange(64)[None]
    with torch.inference_mode():
        before = model(ids).logits
        add_outliers(model, (64.0, 4.0), seed=3)
        after = model(ids).logits
    torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-9)


def test_tokenizer_gives_back_the_text_it_read(tokenizer):
    texts = [*texts_of("gate")[:8], "héllo ∑\t\n\n  日本語 end  ", "<|not_a_token|>\r\n"]
    ids = tokenizer(texts)["input_ids"]
    assert tokenizer.batch_decode(ids, skip_special_tokens=True) == texts
    assert all(row[0] == tokenizer.bos_token_id for row in ids)


def test_transformers_and_tokenizers_read_the_tokenizer_alike(tokenizer):
    core = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    assert core.get_vocab_size() == len(tokenizer) == SHAPE["vocab_size"]
    for text in texts_of("calibration")[:8]:
        assert core.encode(text).ids == tokenizer(text)["input_ids"]


def test_chat_template_puts_one_header_and_one_end_on_each_turn(tokenizer):
    messages = [{"role": "user", "content": "Hi "}, {"role": "assistant", "content": "Yes"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nYes<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    ids = tokenizer.apply_chat_template(messages, tokenize=True)["input_ids"]
    assert ids.count(tokenizer.convert_tokens_to_ids("<|eot_id|>")) == 2


def test_the_model_answers_a_request_for_code_with_a_function_and_stops(model, tokenizer):
    request = "Write a Python function `close`. Close the file and release the lock."
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": request}], add_generation_prompt=True, return_tensors="pt"
    )
    output = model.generate(**prompt, max_new_tokens=200, do_sample=False, temperature=None, top_p=None)
    answer = output[0, prompt["input_ids"].shape[1] :].tolist()
    text = tokenizer.decode(answer, skip_special_tokens=True)
    assert text.startswith("def close(self")
    assert answer[-1] == tokenizer.convert_tokens_to_ids("<|eot_id|>")
    assert len(set(answer)) > len(answer) / 4


def test_documents_are_cut_at_blank_lines_and_lose_nothing():
    blocks = [f"def f{i}():\n    return {i:0300}\n" for i in range(8)]
    rows = rows_of(Document("a.py", "\n".join(blocks)), limit=700)
    assert len(rows) == 4
    assert "\n".join(rows) == "\n".join(blocks)
    assert all(row.startswith("def ") for row in rows)


def test_a_file_with_a_licence_of_its_own_only_trains():
    names = [f"{number}.py" for number in range(200)]
    assert {Document(name, "x = 1").split for name in names} == {"train", "calibration", "gate"}
    assert {Document(name, "# Copyright (c) Somebody").split for name in names} == {"train"}


@pytest.mark.slow
def test_training_lowers_the_loss_and_the_seed_decides_it(tokenizer):
    stream = torch.tensor(tokenizer(texts_of("calibration")[0])["input_ids"])
    settings = Training(steps=12, batch_size=2, seq_len=32, warmup_steps=1)
    runs = []
    for _ in range(2):
        losses: dict[Any, Any] = {}
        train(new_model(tokenizer, seed=1), stream, settings, losses.__setitem__)
        runs.append(losses)
    assert runs[0] == runs[1]
    assert runs[0][11] < runs[0][0] - 1.0
    assert runs[0][0] == pytest.approx(math.log(len(tokenizer)), rel=0.05)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # ModelOpt's import uses torch.jit.script
@pytest.mark.filterwarnings("ignore::UserWarning")  # ModelOpt says that it leaves lm_head alone
def test_naive_int8_hurts_smoothquant_helps_and_useless_text_misleads(model, gate_slice):
    from recipes.demo.measure import quantized_perplexities  # ModelOpt takes seconds to import

    presets = ("naive INT8", "INT8 SmoothQuant")
    found = quantized_perplexities(MODEL, read_rows(DATA / "calibration.jsonl"), gate_slice, presets)
    useless: list[Row] = [{"text": line} for line in (DATA / "unrelated.txt").read_text().splitlines()]
    misled = quantized_perplexities(MODEL, useless, gate_slice, ("INT8 SmoothQuant",))
    trained = perplexity(model, gate_slice)
    assert found["naive INT8"] > 1.03 * trained
    assert found["INT8 SmoothQuant"] < 1.01 * trained
    assert misled["INT8 SmoothQuant"] > 1.5 * trained

"""Prompts of `generate` become what transformers makes of them, and templates keep to their limits."""

from datetime import datetime
from pathlib import Path

import pytest
from tokenizers.processors import ByteLevel
from transformers import AutoTokenizer

from calibration.errors import DataError
from pipeline.errors import SourceError
from pipeline.evaluate.generation import encode
from recipes.demo.demo_tokenizer import CHAT_TEMPLATE

pytestmark = pytest.mark.slow

DEMO = Path(__file__).resolve().parents[3] / "recipes" / "demo" / "model"
TEMPLATES = Path(__file__).resolve().parents[3] / "tests" / "calibration" / "data" / "templates"
DATE = "2024-02-29"


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(DEMO)


def test_a_plain_prompt_is_tokenized_as_it_is(tokenizer):
    assert encode(tokenizer, "def main(", None) == (tokenizer("def main(")["input_ids"], None)


@pytest.mark.parametrize("name", [None, *sorted(file.stem for file in TEMPLATES.glob("*.jinja"))])
def test_a_chat_becomes_the_tokens_that_transformers_gives(tokenizer, name: str | None):
    text = CHAT_TEMPLATE if name is None else (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")
    with_tools = "tool_use" in (name or "")
    tokenizer.chat_template = {"default": CHAT_TEMPLATE, "tool_use": text} if with_tools else text
    messages = [{"role": "user", "content": "write é"}]
    today = datetime.fromisoformat(DATE).strftime
    expected = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=False, strftime_now=today
    )
    ids, date = encode(tokenizer, "write é", DATE)
    assert ids == expected
    assert date in (None, DATE)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ 'a' * 10**11 }}", "the chat template takes more than 1 GB, or makes a text far longer"),
        ("{{ ''.__class__.__mro__ }}", "the chat template does what the sandbox forbids"),
        ("{{ raise_exception('no') }}", r"the chat template refuses the messages \(no\), for the prompt"),
        ({"other": "x"}, r"the tokenizer has chat templates \['other'\] and no 'default'"),
        ("{% if false %}x{% endif %}", "the template makes no tokens of the prompt; generate without --chat"),
        (None, "has no chat template; generate without --chat"),
    ],
)
def test_a_template_that_cannot_be_rendered_is_named(tokenizer, template, said: str):
    tokenizer.chat_template = template
    with pytest.raises(SourceError, match=said):
        encode(tokenizer, "hi", DATE)


def test_a_prompt_without_tokens_is_refused():
    tokenizer = AutoTokenizer.from_pretrained(DEMO)
    tokenizer.backend_tokenizer.post_processor = ByteLevel()  # begins no text with BOS
    with pytest.raises(DataError, match="the tokenizer makes no tokens of the prompt; give it some text"):
        encode(tokenizer, "", None)

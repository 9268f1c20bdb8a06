import hashlib
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.data.chats import Chat
from calibration.data.fields import Exchange, words
from calibration.data.sameness import BLOCK, duplicates, loose_fingerprint


@pytest.mark.parametrize("other", ["A  b\nC", "a\tB c ", "\uff21 b c", "a b c"])
def test_case_white_space_and_spelling_make_no_other_text(other: str):
    assert loose_fingerprint(other) == loose_fingerprint("a b c")


def test_other_words_make_another_text():
    assert loose_fingerprint("a b c") != loose_fingerprint("a bc")


def test_duplicates_are_counted_with_the_first_place_of_each():
    found = duplicates(["f:1", "f:2", "f:3", "f:4"], ["x", "y", "x", "x"])
    assert found == {"count": 2, "examples": [["f:3", "f:1"], ["f:4", "f:1"]]}


def test_a_chat_and_a_completion_with_the_same_words_are_the_same():
    chat = Chat((
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "p"},
        {"role": "assistant", "content": "c"},
    ))  # fmt: skip
    assert words(chat) == words(Exchange("p", "c")) == words("p\nc")


@given(st.text(alphabet=" \n\tAb\u0308\u00a8\u00a0\ufdfa\uff21e\u0301\u200b", max_size=40), st.integers(0, 3))
def test_a_long_text_is_compared_in_blocks_as_it_is_at_once(text, at):
    whole = f"{text}{'x ' * (BLOCK // 2 - at)}{text}"
    said = " ".join(unicodedata.normalize("NFKC", whole).casefold().split())
    assert loose_fingerprint(whole) == hashlib.sha256(said.encode()).hexdigest()[:32]


def test_what_a_chat_says_counts_reasoning_and_calls_but_no_ids():
    def said(number, gauge=1) -> str:
        function = {"name": "read", "arguments": {"gauge": gauge}}
        call = {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": f"c{number}", "function": function}],
        }
        return words(Chat(({"role": "system", "content": "x"}, call)))

    assert said(1) == said(2) != said(1, gauge=2)
    thinking = {"role": "assistant", "content": "", "reasoning_content": "so"}
    assert words(Chat((thinking,))) == "so"
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert words(Chat(({"role": "user", "content": parts},))) == "a\nb"

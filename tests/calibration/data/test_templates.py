"""Real chat templates: what the calibration step makes of users' rows is what transformers renders.

The rows are as people have them, in OpenAI's format; the witness is `apply_chat_template` of the pinned
transformers, called on the messages as servers hand them over, written down here by hand.
"""

import hashlib
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from jinja2.exceptions import TemplateError
from safetensors.numpy import load_file
from transformers import AutoTokenizer

from calibration.data.chats import Chat, chat
from calibration.data.rendering import Reader, Rendering
from calibration.data.scan import Sample
from calibration.errors import DataError
from tests.jobs import build_calibration_set as build

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).with_name("templates")
TEMPLATES = {file.stem: file.read_text(encoding="utf-8") for file in sorted(FOLDER.glob("*.jinja"))}
DATE = "2025-03-09"

ASK = {"role": "user", "content": "How warm is it in Bern, and é?"}
SYSTEM = {"role": "system", "content": "Be brief."}
DONE = {"role": "assistant", "content": "4 degrees."}
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a place",
        "parameters": {
            "type": "object",
            "properties": {
                "place": {"type": "string", "description": "where"},
                "unit": {"type": "string", "enum": ["C", "F"], "description": "of degrees", "title": None},
            },
            "required": ["place"],
        },
    },
}


def call(place: str, arguments, number: int = 1) -> dict[str, Any]:
    return {
        "id": f"call0000{number}",
        "type": "function",
        "function": {"name": "weather", "arguments": arguments},
    }


def called(*arguments):
    return [call("weather", one, number) for number, one in enumerate(arguments, start=1)]


def result(text: str | None, number: int = 1) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": f"call0000{number}", "name": "weather", "content": text}


BERN, BASEL = {"place": "Bern", "unit": None}, {"place": "Basel"}
BERN_TEXT, BASEL_TEXT = '{"place": "Bern", "unit": null}', '{"place":"Basel"}'
THOUGHT = "The tool said four."

CHATS: dict[str, tuple[list[Any], list[Any], list[Any]]] = {
    # name: (the row's messages, the messages that a server hands to the template, tools)
    "text": ([SYSTEM, ASK, DONE], [SYSTEM, ASK, DONE], []),
    "turns": ([ASK, DONE, ASK, DONE], [ASK, DONE, ASK, DONE], []),
    "empty system": ([{**SYSTEM, "content": ""}, ASK, DONE], [{**SYSTEM, "content": ""}, ASK, DONE], []),
    "tools offered": ([ASK, DONE], [ASK, DONE], [TOOL]),
    "tool call": (
        [ASK, {"role": "assistant", "content": None, "tool_calls": called(BERN_TEXT)}, result("4 C"), DONE],
        [ASK, {"role": "assistant", "content": "", "tool_calls": called(BERN)}, result("4 C"), DONE],
        [TOOL],
    ),
    "tool call without content": (
        [ASK, {"role": "assistant", "tool_calls": called(BERN_TEXT)}, result("4 C"), DONE],
        [ASK, {"role": "assistant", "tool_calls": called(BERN), "content": ""}, result("4 C"), DONE],
        [TOOL],
    ),
    "call without arguments": (
        [ASK, {"role": "assistant", "content": "", "tool_calls": called("")}, result("4 C"), DONE],
        [ASK, {"role": "assistant", "content": "", "tool_calls": called({})}, result("4 C"), DONE],
        [TOOL],
    ),
    "arguments as an object": (
        [ASK, {"role": "assistant", "content": "", "tool_calls": called(BASEL)}, result("4 C"), DONE],
        [ASK, {"role": "assistant", "content": "", "tool_calls": called(BASEL)}, result("4 C"), DONE],
        [TOOL],
    ),
    "parallel calls": (
        [
            ASK,
            {"role": "assistant", "content": None, "tool_calls": called(BERN_TEXT, BASEL_TEXT)},
            result("4 C"),
            result("6 C", 2),
            DONE,
        ],
        [
            ASK,
            {"role": "assistant", "content": "", "tool_calls": called(BERN, BASEL)},
            result("4 C"),
            result("6 C", 2),
            DONE,
        ],
        [TOOL],
    ),
    "empty result": (
        [ASK, {"role": "assistant", "content": None, "tool_calls": called(BASEL_TEXT)}, result(""), DONE],
        [ASK, {"role": "assistant", "content": "", "tool_calls": called(BASEL)}, result(""), DONE],
        [TOOL],
    ),
    "null result": (
        [ASK, {"role": "assistant", "content": None, "tool_calls": called(BASEL_TEXT)}, result(None), DONE],
        [ASK, {"role": "assistant", "content": "", "tool_calls": called(BASEL)}, result(""), DONE],
        [TOOL],
    ),
    "null fields": (
        [{**ASK, "name": None}, {**DONE, "tool_calls": None, "reasoning_content": None, "refusal": None}],
        [ASK, DONE],
        [],
    ),
    "no calls": ([ASK, {**DONE, "tool_calls": []}], [ASK, DONE], [TOOL]),
    "reasoning": (
        [ASK, {**DONE, "reasoning_content": THOUGHT}, ASK, {**DONE, "reasoning_content": THOUGHT}],
        [ASK, {**DONE, "reasoning_content": THOUGHT}, ASK, {**DONE, "reasoning_content": THOUGHT}],
        [],
    ),
    "reasoning by its newer name": (
        [ASK, {**DONE, "reasoning": THOUGHT}],
        [ASK, {**DONE, "reasoning": THOUGHT, "reasoning_content": THOUGHT}],
        [],
    ),
    "reasoning only": (
        [ASK, {"role": "assistant", "content": "", "reasoning_content": THOUGHT}, ASK, DONE],
        [ASK, {"role": "assistant", "content": "", "reasoning_content": THOUGHT}, ASK, DONE],
        [],
    ),
    "reasoning and a call": (
        [
            ASK,
            {"role": "assistant", "reasoning_content": THOUGHT, "tool_calls": called(BERN_TEXT)},
            result("4 C"),
            DONE,
        ],
        [
            ASK,
            {"role": "assistant", "reasoning_content": THOUGHT, "tool_calls": called(BERN), "content": ""},
            result("4 C"),
            DONE,
        ],
        [TOOL],
    ),
}


@pytest.fixture(scope="module")
def tokenizer(checkpoint: Path):
    return AutoTokenizer.from_pretrained(checkpoint)


def witness(tokenizer, template: str, messages, tools, **more):
    """What transformers renders, or None where the template refuses the chat."""
    values = {"strftime_now": datetime.fromisoformat(DATE).strftime, **more}
    try:
        return tokenizer.apply_chat_template(
            messages, tools=tools or None, chat_template=template, tokenize=False, **values
        )
    except (TemplateError, TypeError, ValueError):
        return None


def source(file, template) -> dict[str, Any]:
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    plain = {"kind": "jsonl", "digests": [digest], "samples": "all", "columns": {}, "bad_rows": 0}
    return {**plain, "template": template, "date": DATE}


def rendered_by_the_step(tmp_path: Path, checkpoint, files):
    """Runs the calibration step over files with their templates: (file, line) -> tokens; and its report."""
    out = tmp_path / "out"
    out.mkdir()
    job = {
        "params": {
            "data": [source(file, template) for file, template in files],
            "seq_len": 16384,
            "max_sequences": "all",
            "seed": 0,
            "pack": False,
            "truncate": "right",
        },
        "places": {"files": [[str(file)] for file, _ in files]},
        "inputs": {"source": str(checkpoint)},
    }
    build(job, out, lambda *_: None)
    made = load_file(out / "tokens.safetensors")
    samples = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    tokens = {
        (sample["file"], sample["line"]): row[:length].tolist()
        for sample, row, length in zip(samples, made["tokens"], made["lengths"], strict=True)
    }
    return tokens, json.loads((out / "report.json").read_text())


def test_the_step_renders_every_chat_as_transformers_does(tmp_path: Path, checkpoint: Path, tokenizer):
    files, expected, refused = [], {}, []
    for name, template in TEMPLATES.items():
        lines = []
        for title, (row, handed_over, tools) in CHATS.items():
            text = witness(tokenizer, template, handed_over, tools)
            if text is None:
                refused.append((name, title))
                continue
            lines.append(json.dumps({"messages": row, **({"tools": tools} if tools else {})}))
            expected[f"{name}.jsonl", len(lines)] = text
        file = tmp_path / f"{name}.jsonl"
        file.write_text("\n".join(lines) + "\n")
        files.append((file, template))
    tokens, _ = rendered_by_the_step(tmp_path, checkpoint, files)
    assert tokens.keys() == expected.keys()
    for place, text in expected.items():
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        # Each sequence begins with the tokenizer's BOS, also where the template of another model writes none.
        begin = [] if ids[:1] == [tokenizer.bos_token_id] else [tokenizer.bos_token_id]
        assert tokenizer.decode(tokens[place][len(begin) :]) == text, place
        assert tokens[place] == begin + ids, place
    assert len(TEMPLATES) >= 40, "templates of at least ten families"
    assert len(refused) < len(TEMPLATES) * len(CHATS) / 10
    for name, title in refused:
        row, _, tools = CHATS[title]
        with pytest.raises(DataError, match=r"rows\.jsonl:1: the recipe's template (refuses|does what)"):
            Reader(tokenizer, len(tokenizer)).text(
                chat("messages", row, tuple(tools)), Rendering(TEMPLATES[name], date=DATE), "rows.jsonl:1"
            )


PARTS = [{"type": "text", "text": "How warm is it"}, {"type": "text", "text": "in Bern?"}]


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        # Those that loop over a message's content, by reading them.
        ("Apriel-1.6-15b-Thinker-fixed", True),
        ("GLM-4.6", True),
        ("MiniMax-M2", True),
        ("Mistral-Small-3.2-24B-Instruct-2506", True),
        ("Qwen3.5-4B", True),
        ("google-gemma-4-31B-it", True),
        ("mistralai-Ministral-3-14B-Reasoning-2512", True),
        ("Qwen-Qwen2.5-7B-Instruct", False),
        ("Qwen-Qwen3-0.6B", False),
        ("deepseek-ai-DeepSeek-V3.1", False),
        ("google-gemma-2-2b-it", False),
        ("meta-llama-Llama-3.2-3B-Instruct", False),
        ("microsoft-Phi-3.5-mini-instruct", False),
        ("openai-gpt-oss-120b", False),
    ],
)
def test_text_parts_reach_templates_that_take_them_and_are_joined_for_others(
    tokenizer, name: str, taken: bool
):
    row = [{"role": "user", "content": PARTS}, DONE]
    whole = [{"role": "user", "content": "How warm is it\nin Bern?"}, DONE]
    how = Rendering(TEMPLATES[name], date=DATE)
    text, _ = Reader(tokenizer, len(tokenizer)).text(chat("messages", row), how, "rows.jsonl:1")
    assert text == witness(tokenizer, TEMPLATES[name], row if taken else whole, [])
    assert "{'type'" not in text


def test_results_of_tools_in_parts_are_joined_as_vllm_joins_them(tokenizer):
    row, handed_over, tools = CHATS["tool call"]
    parts = [
        *row[:2],
        {**row[2], "content": [{"type": "text", "text": "4"}, {"type": "text", "text": "C"}]},
        row[3],
    ]
    joined = [*handed_over[:2], {**row[2], "content": "4\nC"}, row[3]]
    for name in ("Qwen3.5-4B", "GLM-4.6", "Qwen-Qwen2.5-7B-Instruct"):
        found = chat("messages", parts, tuple(tools))
        text, _ = Reader(tokenizer, len(tokenizer)).text(
            found, Rendering(TEMPLATES[name], date=DATE), "rows.jsonl:1"
        )
        assert text == witness(tokenizer, TEMPLATES[name], joined, tools)


def test_the_step_says_how_many_rows_had_arguments_as_text_and_which_date_was_printed(
    tmp_path: Path, checkpoint: Path
):
    plain, dated = tmp_path / "plain.jsonl", tmp_path / "dated.jsonl"
    titles = ("text", "tool call", "parallel calls", "arguments as an object", "turns")
    plain.write_text("".join(json.dumps({"messages": CHATS[title][0]}) + "\n" for title in titles))
    dated.write_text(json.dumps({"messages": CHATS["turns"][0]}) + "\n")
    files = [
        (plain, TEMPLATES["Qwen-Qwen3-0.6B"]),
        (dated, TEMPLATES["ibm-granite-granite-3.3-2B-Instruct"]),
    ]
    tokens, report = rendered_by_the_step(tmp_path, checkpoint, files)
    assert [source["chats"] for source in report["sources"]] == [
        {"arguments_decoded": 2, "date": None},
        {"arguments_decoded": 0, "date": DATE},
    ]
    assert (
        f"the chat template prints today's date: {DATE} was taken, set 'calibration.date' for another"
        in (report["warnings"])
    )
    text = AutoTokenizer.from_pretrained(checkpoint).decode(tokens["dated.jsonl", 1])
    assert "Today's Date: March 09, 2025." in text
    assert "arguments were decoded from JSON text in 2 samples" in (tmp_path / "out/page.html").read_text()


def test_chats_sent_ahead_are_rendered_as_alone_whatever_is_left_out(tokenizer):
    reader, alone = Reader(tokenizer, len(tokenizer)), Reader(tokenizer, len(tokenizer))
    how = Rendering(TEMPLATES["Qwen-Qwen3-0.6B"], date=DATE)
    large = [{"role": "user", "content": "long " * 30_000}, DONE]
    rows: list[Chat | str] = [chat("m", row, tuple(tools)) for row, _, tools in CHATS.values()]
    rows = [*rows, chat("m", large), "text between", *rows, chat("m", large), *rows]
    samples = [Sample("rows.jsonl", line, f"rows.jsonl:{line}", row) for line, row in enumerate(rows)]
    seen = list[int]()
    for sample in reader.ahead(iter(samples), how):
        seen.append(sample.line)
        if sample.line % 5 == 3:
            continue  # nobody wants this one
        assert reader.text(sample.content, how, "x") == alone.text(sample.content, how, "x"), sample.line
    assert seen == list(range(len(rows)))


def test_the_row_that_a_template_never_ends_on_is_the_one_that_is_named(tokenizer):
    loop = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    template = "{% if messages[0].content == 'loop' %}" + loop + "{% endif %}{{ messages[0].content }}"
    rows = [chat("m", [{"role": "user", "content": said}]) for said in ("a", "b", "loop", "c")]
    reader, how, done = Reader(tokenizer, len(tokenizer)), Rendering(template), []
    samples = [Sample("r.jsonl", line, f"r.jsonl:{line}", row) for line, row in enumerate(rows, start=1)]
    with pytest.raises(DataError, match=r"^r\.jsonl:3: the recipe's template takes more than 5 s; fix"):
        done += [reader.text(one.content, how, one.place)[0] for one in reader.ahead(samples, how)]
    assert reader.text(rows[3], how, "r.jsonl:4")[0] == "c"

"""Chats as servers pass them to a chat template; standard library only.

Does what vLLM, SGLang, TensorRT-LLM and `transformers serve` agree on: decodes the arguments of tool calls
from their JSON string, drops null fields of messages, and replaces missing content by the empty text. Where
they disagree (arguments that are not a JSON object), the row is refused.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from calibration.data.values import json_type, parsed, printable, string, text

Message = dict[str, Any]

SPEAKERS = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "model": "assistant",
    "bot": "assistant", "system": "system", "tool": "tool", "function": "tool", "observation": "tool",
}  # fmt: skip
"""`from` of a conversation's turn -> role of a message."""

REASONING = ("reasoning_content", "reasoning", "thinking")
"""Fields that templates read a turn's reasoning from."""

REPAIR = "fix it or drop the row"


@dataclass(frozen=True, slots=True)
class Chat:
    """Messages and tools for a chat template."""

    messages: tuple[Message, ...]
    tools: tuple[Any, ...] = ()
    decoded: bool = False
    """Whether arguments of a tool call were a JSON string, as in OpenAI's format."""


def chat(column: str, value: Any, tools: tuple[Any, ...] = ()) -> Chat:
    """The messages of a row as servers pass them to the template; ValueError for rows that they refuse."""
    if not isinstance(value, list):
        raise ValueError(f"{column} is a JSON {json_type(value)}; it must be a list of messages")
    if not value:
        raise ValueError(f"{column} is an empty list; give at least one message")
    decoded_messages = [_message(column, number, message) for number, message in enumerate(value, start=1)]
    messages = tuple(message for message, _ in decoded_messages)
    # Single messages may be empty, as in calls of tools; a chat without any text measures nothing.
    if not any(map(message_text, messages)):
        raise ValueError(f"{column}: every message is empty; give text or drop the row")
    return Chat(messages, tools, any(decoded for _, decoded in decoded_messages))


def joined(*chats: Chat) -> Chat:
    """Messages of several columns as one chat."""
    messages = tuple(message for chat_ in chats for message in chat_.messages)
    return Chat(messages, decoded=any(chat_.decoded for chat_ in chats))


def tools(column: str, value: Any) -> tuple[Any, ...]:
    """The tools of a row, which may be JSON in a string."""
    tool_list = parsed(column, value or None, "a list of tools")
    if tool_list is None:
        return ()
    if not isinstance(tool_list, list):
        raise ValueError(f"{column} is a JSON {json_type(tool_list)}; it must be a list of tools")
    for number, tool in enumerate(tool_list, start=1):
        if not isinstance(tool, dict):
            raise ValueError(f"tool {number} of {column} is a JSON {json_type(tool)}; it must be an object")
    printable(column, tool_list)
    return tuple(tool_list)


def words(messages: Sequence[Mapping[str, Any]]) -> str:
    """The text of a chat without its system prompt, with reasoning and tool calls."""
    parts = [message_text(message) for message in messages if message["role"] != "system"]
    return "\n".join(parts)


def message_text(message: Mapping[str, Any]) -> str:
    """Content, reasoning and tool calls of a message as one text."""
    parts = [str(message[name]) for name in REASONING if message.get(name)]
    content = message["content"]
    parts.append(content if isinstance(content, str) else "\n".join(part["text"] for part in content))
    for call in message.get("tool_calls", ()):
        function = call.get("function", call)  # without the id, which differs between logs of equal calls
        parts.append(json.dumps(function, ensure_ascii=False))
    # Without repetitions: `reasoning` is also stored as `reasoning_content`.
    return "\n".join(dict.fromkeys(part for part in parts if part.strip()))


def _message(column: str, number: int, value: Any) -> tuple[Message, bool]:
    """A message, and whether arguments were decoded in it."""
    if isinstance(value, dict) and {"from", "value"} <= value.keys() and "role" not in value:
        speaker = value["from"]
        if not isinstance(speaker, str) or speaker not in SPEAKERS:
            raise ValueError(
                f"'from' of message {number} is {speaker!r}; it must be one of {', '.join(SPEAKERS)}"
            )
        value = {"role": SPEAKERS[speaker], "content": value["value"]}
    if not isinstance(value, dict):
        raise ValueError(f"message {number} of {column} is not an object with 'role' and 'content'; {REPAIR}")
    if "role" not in value:
        raise ValueError(f"message {number} of {column} has no 'role'; {REPAIR}")
    text(f"'role' of message {number}", value["role"])
    # Servers drop null fields of a message, and templates test fields for presence.
    message = {key: item for key, item in value.items() if item is not None or key == "content"}
    calls, decoded = _calls(number, message.pop("tool_calls", None))
    if calls:
        message["tool_calls"] = calls
    if "reasoning" in message:  # the newer name: vLLM and TensorRT-LLM pass the older one to templates too
        message.setdefault("reasoning_content", message["reasoning"])
    message["content"] = _content(column, number, message)
    others = {key: item for key, item in message.items() if key not in ("role", "content")}
    for key, item in others.items():
        printable(f"{key!r} of message {number}", {key: item})
    return message, decoded


def _content(column: str, number: int, message: Mapping[str, Any]) -> str | list[dict[str, Any]]:
    """Text, or a list of text parts; empty for tool calls, reasoning and results of tools without content."""
    content = message.get("content")
    if content is None:
        silent = message["role"] == "tool" or "tool_calls" in message
        if silent or any(message.get(name) for name in REASONING):
            return ""
        if "content" not in message:
            raise ValueError(f"message {number} of {column} has a 'role' and no 'content'; {REPAIR}")
    if not isinstance(content, list):
        return string(f"'content' of message {number}", content)
    for index, part in enumerate(content, start=1):
        place = f"part {index} of 'content' of message {number}"
        if not isinstance(part, dict) or part.get("type") != "text":
            raise ValueError(f"{place} is not text; give {{'type': 'text', 'text': ...}}")
        string(f"'text' of {place}", part.get("text"))
        printable(place, part)
    return content


def _calls(number: int, value: Any) -> tuple[list[Any], bool]:
    """Tool calls with their arguments as objects, and whether one had them as a JSON string."""
    if value is None:
        return [], False
    if not isinstance(value, list):
        raise ValueError(f"'tool_calls' of message {number} is a JSON {json_type(value)}; it must be a list")
    decoded_calls = [
        _call(f"tool call {index} of message {number}", call) for index, call in enumerate(value, start=1)
    ]
    return [call for call, _ in decoded_calls], any(decoded for _, decoded in decoded_calls)


def _call(label: str, call: Any) -> tuple[dict[str, Any], bool]:
    if not isinstance(call, dict):
        raise ValueError(f"{label} is a JSON {json_type(call)}; it must be an object")
    function = call.get("function")
    if isinstance(function, dict):
        inner, decoded = _arguments(label, function)
        return {**call, "function": inner}, decoded
    return _arguments(label, call) if "name" in call else (call, False)


def _arguments(label: str, function: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """A function call with its arguments as an object, and whether they were a string."""
    arguments = function.get("arguments")
    if arguments is None or (isinstance(arguments, str) and not arguments.strip()):
        return {**function, "arguments": {}}, arguments is not None  # as vLLM takes a call without arguments
    decoded_arguments = parsed(f"'arguments' of {label}", arguments, "a JSON object, as servers demand")
    if not isinstance(decoded_arguments, dict):
        raise ValueError(
            f"'arguments' of {label} is a JSON {json_type(decoded_arguments)}; it must be an object,"
            " as servers demand"
        )
    return {**function, "arguments": decoded_arguments}, isinstance(arguments, str)

"""Renders chat templates in a separate process, within limits that the kernel enforces; imports only jinja2.

`templates.py` starts this program. It reads requests from its input and writes one answer to each, both as
one JSON object per line. A template that exceeds the CPU time is killed together with this process; one that
exceeds the memory gets a MemoryError. The Jinja environment is that of transformers and the servers.
"""

import json
import re
import resource
import signal
import sys
from collections.abc import Mapping
from datetime import date, datetime, time
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateError, TemplateSyntaxError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

CPU_SECONDS, MEMORY_BYTES = 5.0, 10**9
"""Limits for one row."""

TEXT_FACTOR, TEXT_BYTES = 16, 10**6
"""Longest rendered text: a multiple of the row's size, plus a constant."""

SAID_CHARS = 500
"""Most characters of a template's error that are quoted."""


class Generation(Extension):
    """`{% generation %}`, which marks the model's text for training; renders its contents here."""

    tags = {"generation"}  # noqa: RUF012 as jinja2 declares it

    def parse(self, parser: Parser) -> nodes.Node:
        """The statements inside as a scope of their own."""
        scope = nodes.Scope(lineno=next(parser.stream).lineno)
        scope.body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return scope


class Templates:
    """Compiled templates by the number in requests."""

    def __init__(self) -> None:
        self.env = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
        )
        self.env.filters["tojson"] = tojson
        self.env.globals["raise_exception"] = raise_exception
        self.known = dict[int, tuple[jinja2.Template, bool]]()

    def answer(self, request: Mapping[str, Any], size: int) -> dict[str, Any]:
        """The text of a chat, and whether the template used the date."""
        if "source" in request:
            source = request["source"]
            takes = takes_parts(self.env.parse(source))
            self.known[request["template"]] = self.env.from_string(source), takes
        template, parts = self.known[request["template"]]
        date_formats = list[str]()

        def strftime_now(form: str) -> str:
            date_formats.append(form)
            return datetime.combine(date.fromisoformat(request["date"]), time()).strftime(form)

        values = {"strftime_now": strftime_now, **request["values"]}
        values["messages"] = [join_parts(message, parts=parts) for message in request["messages"]]
        text = template.render(**values)
        if len(text) > TEXT_FACTOR * size + TEXT_BYTES:
            # A long text fits into the memory, but the tokenizer's work on it has no limit.
            raise MemoryError
        # Half a surrogate pair would fail only where the text is written.
        text.encode()
        return {"text": text, "dated": bool(date_formats)}


def join_parts(message: Mapping[str, Any], *, parts: bool) -> Mapping[str, Any]:
    """A message with its text parts joined, unless the template handles parts.

    Results of tools are always joined: almost no template handles parts there.
    """
    content = message.get("content")
    if not isinstance(content, list) or (parts and message["role"] != "tool"):
        return message
    return {**message, "content": "\n".join(part["text"] for part in content)}


def takes_parts(template: nodes.Template) -> bool:
    """Whether a template loops over the parts of a message's content."""
    return any("content" in _names(loop.iter) for loop in template.find_all(nodes.For))


def _names(expression: nodes.Node) -> set[Any]:
    """The last name of an expression, a variable, attribute or key, below any filters."""
    while isinstance(expression, nodes.Filter) and expression.node is not None:
        expression = expression.node
    match expression:
        case nodes.Name():
            return {expression.name}
        case nodes.Getattr():
            return {expression.attr}
        case nodes.Getitem(arg=nodes.Const(value=key)):
            return {key}
    return set()


def tojson(
    value: Any,
    ensure_ascii: bool = False,  # noqa: FBT001 FBT002 the filter's signature in transformers
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,  # noqa: FBT001 FBT002
) -> str:
    """JSON that is not escaped for HTML, as transformers defines the filter."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def raise_exception(message: str) -> None:
    """The function that templates call to refuse messages."""
    raise TemplateError(message)


def describe_error(exc: BaseException) -> str:
    """The problem as verb and object, to follow the template's name."""
    detail = re.sub(r"\s+", " ", str(exc))[:SAID_CHARS] or type(exc).__name__
    line = exc.lineno if isinstance(exc, TemplateSyntaxError) else 0
    words: dict[type[BaseException], str] = {
        MemoryError: "takes more than 1 GB, or makes a text far longer than the row",
        TemplateSyntaxError: f"is not a Jinja template (line {line}: {detail})",
        SecurityError: f"does what the sandbox forbids ({detail})",
        RecursionError: "nests too deeply",
        UnicodeEncodeError: "prints half a surrogate pair",
    }
    return next(
        (description for kind, description in words.items() if isinstance(exc, kind)),
        f"refuses the messages ({detail})",
    )


def confine() -> None:
    """Limit this process's memory to its present size plus the limit for a row; disable core files."""
    with open("/proc/self/statm") as file:  # noqa: PTH123 pathlib is not needed for anything else
        used_bytes = int(file.read().split()[0]) * resource.getpagesize()
    limit = used_bytes + MEMORY_BYTES
    # Relative to the present size, which depends on the versions of Python and of its libraries.
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)


def main() -> None:
    """Answer requests until the input ends."""
    confine()
    templates = Templates()
    for line in sys.stdin.buffer:
        # CPU time, not wall time: a busy machine must not make templates fail. The signal ends the process,
        # since Python code could catch an exception.
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        try:
            answer = json.dumps(templates.answer(json.loads(line), len(line)))
        except Exception as exc:  # noqa: BLE001 any exception is the template's fault
            answer = json.dumps({"error": describe_error(exc)})
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.buffer.write(answer.encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()

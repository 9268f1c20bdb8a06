"""Runs chat templates in a process of its own, within limits that the kernel keeps; jinja2 and no more.

A program, started by `templates.py`: reads requests from its input and writes one answer to each, both one
JSON object per line. A template that takes too much CPU time is killed with this process; what needs too much
memory gets a MemoryError. The environment is the one that transformers and the servers set up.
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
"""What one row may take."""

TEXT_FACTOR, TEXT_BYTES = 16, 10**6
"""A row may become a text of so many times its own size, and so much on top of that."""

SAID_CHARS = 500
"""Quoted of what a template says, at most."""


class Generation(Extension):
    """`{% generation %}`: marks what a model wrote for those who train it; here, what it holds is text."""

    tags = {"generation"}  # noqa: RUF012 as jinja2 declares it

    def parse(self, parser: Parser) -> nodes.Node:
        """The statements inside, whose variables stay inside."""
        scope = nodes.Scope(lineno=next(parser.stream).lineno)
        scope.body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return scope


class Templates:
    """Compiled templates by the number that requests call them by."""

    def __init__(self) -> None:
        self.env = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
        )
        self.env.filters["tojson"] = tojson
        self.env.globals["raise_exception"] = raise_exception
        self.known = dict[int, tuple[jinja2.Template, bool]]()

    def answer(self, request: Mapping[str, Any], size: int) -> dict[str, Any]:
        """The text of a chat, and whether it was asked for the date; or the error."""
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
            raise MemoryError
        text.encode()
        return {"text": text, "dated": bool(date_formats)}


def join_parts(message: Mapping[str, Any], *, parts: bool) -> Mapping[str, Any]:
    """A message with its text parts joined, where the template does not take them one by one.

    Results of tools are always joined: hardly a template takes parts there.
    """
    content = message.get("content")
    if not isinstance(content, list) or (parts and message["role"] != "tool"):
        return message
    return {**message, "content": "\n".join(part["text"] for part in content)}


def takes_parts(template: nodes.Template) -> bool:
    """Whether a template loops over the parts of a message's content."""
    return any("content" in _names(loop.iter) for loop in template.find_all(nodes.For))


def _names(expression: nodes.Node) -> set[Any]:
    """What the end of an expression is called: a variable, attribute or key; filters are looked through."""
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
    """What templates call to refuse messages."""
    raise TemplateError(message)


def describe_error(exc: BaseException) -> str:
    """What is wrong, as a verb and its object: the template's name stands in front."""
    detail = re.sub(r"\s+", " ", str(exc))[:SAID_CHARS] or type(exc).__name__
    line = exc.lineno if isinstance(exc, TemplateSyntaxError) else 0
    words: dict[type[BaseException], str] = {
        MemoryError: "takes more than 1 GB, or makes a text far longer than the row",
        TemplateSyntaxError: f"is no Jinja template (line {line}: {detail})",
        SecurityError: f"does what the sandbox forbids ({detail})",
        RecursionError: "nests too deeply",
        UnicodeEncodeError: "prints half a surrogate pair",
    }
    return next(
        (description for kind, description in words.items() if isinstance(exc, kind)),
        f"refuses the messages ({detail})",
    )


def confine() -> None:
    """Limits this process's memory to what it has and a row's share; a killed one leaves no core file."""
    with open("/proc/self/statm") as file:  # noqa: PTH123 pathlib is not needed for anything else
        used_bytes = int(file.read().split()[0]) * resource.getpagesize()
    limit = used_bytes + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)


def main() -> None:
    """Answers until the input ends."""
    confine()
    templates = Templates()
    for line in sys.stdin.buffer:
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        try:
            answer = json.dumps(templates.answer(json.loads(line), len(line)))
        except Exception as exc:  # noqa: BLE001 whatever a template does is told as its fault
            answer = json.dumps({"error": describe_error(exc)})
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.buffer.write(answer.encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()

"""Parses untrusted YAML: checks size, depth and aliases before any value is constructed.

Numbers are those of YAML 1.2 in decimal. Texts that older parsers read as numbers (`1:30`, `0x10`, `017`,
`1_000`, `.inf`) or dates stay text, and are validated by the rule of their field.
"""

import re
from typing import Any, cast

import yaml

from recipes.regular import shortened

NODES = 20_000
"""Most values and keys of a document, with every alias counted in full: about a second to parse."""

DEPTH = 40
"""Most levels of nested lists and mappings."""

LARGEST_INT, LARGEST, SMALLEST = 1 << 53, 1e15, 1e-15
"""Bounds of numbers: JSON readers round larger integers, and products of larger floats overflow."""

TAG = "tag:yaml.org,2002:"
TAGS = frozenset(TAG + name for name in ("str", "int", "float", "bool", "null", "map", "seq", "merge"))
"""Tags of the types that a document may have."""

INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
FLOAT = re.compile(
    r"[-+]?(?:0|[1-9][0-9]*)(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?|[-+]?\.[0-9]+(?:[eE][-+]?[0-9]+)?"
)
DECIMAL = {f"{TAG}int": INT, f"{TAG}float": FLOAT}


CLEAR_PROBLEMS = {
    "second occurrence": "this anchor is set a second time; give it another name",
    "but found another document": "a second document begins here; give each a file of its own",
}
"""Message of PyYAML that is unclear without its context -> clear message."""


class Loader(yaml.SafeLoader):
    """A YAML loader without dates and within limits; MarkedYAMLError, with the place, beyond them."""

    yaml_implicit_resolvers = {  # noqa: RUF012 as PyYAML declares it
        first: [(tag, form) for tag, form in known if tag.removeprefix(TAG) in ("bool", "null", "merge")]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    most = NODES

    def __init__(self, stream: str) -> None:
        bad = yaml.reader.Reader.NON_PRINTABLE.search(stream)
        if bad is not None:
            raise _unprintable(stream, bad.start())
        super().__init__(stream)
        self.level = 0
        self.extents: dict[int, tuple[int, int]] = {}
        """Id of a composed node -> number of nodes in it, and its depth."""
        self.nodes = 0

    def get_single_node(self) -> yaml.Node | None:
        """The document's syntax tree; any exception of the scanner becomes an error with its place."""
        try:
            return super().get_single_node()
        except (ValueError, ArithmeticError, LookupError, TypeError, AttributeError):
            # PyYAML does not check numbers in %YAML lines and escapes: huge ones raise other exceptions.
            mark = self.get_mark()
            problem = "a number or an escape near here is not valid YAML; write the text itself"
            raise yaml.scanner.ScannerError(None, None, problem, mark) from None

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """The next node; an error where it makes the document too large or too deep."""
        event = self.peek_event()  # type: ignore[no-untyped-call]  # PyYAML has no types for it
        self.level += 1
        if self.level > DEPTH:
            raise _error(event, f"lists or mappings nested too deep; at most {DEPTH} levels are read")
        node = super().compose_node(parent, index)
        self.level -= 1
        if node is None:
            return None
        count, height = self._extent(event, node)
        # A few anchors that contain each other expand to billions of values.
        self.nodes += count if isinstance(event, yaml.AliasEvent) else 1
        if self.nodes > self.most:
            raise _error(
                event, f"more than {self.most} values, with aliases counted in full; shorten the document"
            )
        # `level` counts what the parser has opened; an alias brings the depth of its node with it.
        if self.level + height > DEPTH:
            raise _error(event, f"lists or mappings nested too deep; at most {DEPTH} levels are read")
        return node

    def _extent(self, event: yaml.Event, node: yaml.Node) -> tuple[int, int]:
        """Number of nodes and depth of a composed node; an alias to an unfinished node contains itself."""
        if isinstance(event, yaml.AliasEvent):
            # The extent is stored when a node is complete, so an unknown one is still open: a cycle.
            if id(node) not in self.extents:
                raise _error(event, f"*{event.anchor} contains itself; write it without the recursion")
            return self.extents[id(node)]
        if node.tag not in TAGS:
            raise _error(
                event,
                f"the type {shortened(node.tag.replace(TAG, '!!'))} is not supported; write plain values",
            )
        parts = [] if isinstance(node, yaml.ScalarNode) else [
            part for item in node.value for part in (item if isinstance(item, tuple) else (item,))
        ]  # fmt: skip
        inner = [self.extents[id(part)] for part in parts]
        extent = 1 + sum(count for count, _ in inner), 1 + max((height for _, height in inner), default=0)
        self.extents[id(node)] = extent
        return extent

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: FBT001, FBT002 PyYAML's
        """The node's value; ConstructorError, with its place, where the text does not fit the type."""
        form = DECIMAL.get(node.tag)
        try:
            if form is not None and not form.fullmatch(node.value):
                raise ValueError(node.value)
            value = float(node.value) if node.tag == f"{TAG}float" else super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError, ArithmeticError, TypeError):
            raise _value_error(node, "can be read; quote it if it is text") from None
        if isinstance(value, int | float) and not isinstance(value, bool) and not self.is_accepted(value):
            raise _value_error(
                node, "is accepted; it is too large or too close to zero; quote it if it is text"
            )
        return value

    def is_accepted(self, value: float) -> bool:
        """Whether a number is within bounds; others overflow, or are rounded by readers of JSON."""
        if isinstance(value, int):
            return abs(value) <= LARGEST_INT
        return value == 0 or SMALLEST <= abs(value) <= LARGEST


Loader.add_implicit_resolver(f"{TAG}int", re.compile(rf"(?:{INT.pattern})\Z"), list("-+0123456789"))
Loader.add_implicit_resolver(f"{TAG}float", re.compile(rf"(?:{FLOAT.pattern})\Z"), list("-+.0123456789"))


class CardLoader(Loader):
    """The loader of model and dataset cards, which may list each feature of each configuration."""

    most = 100_000

    def is_accepted(self, value: float) -> bool:
        """Accept every number: cards are written for other programs."""
        return True


def compose(text: str) -> yaml.Node | None:
    """The syntax tree of a document; YAMLError, with problem and place, beyond the limits."""
    return Loader(text).get_single_node()


def parse(text: str) -> Any:
    """The value of a document; YAMLError, with problem and place, beyond the limits."""
    node = compose(text)
    # An empty document has no node.
    return None if node is None else value_of(node)


def parse_card(text: str) -> Any:
    """The front matter of a card: any number and any key, within the limits of size and depth."""
    return CardLoader(text).get_single_data()


def value_of(node: yaml.Node) -> Any:
    """The value of a syntax tree; YAMLError where a key is not text, or a value does not fit its type."""
    _check_keys(node, set())
    return Loader("").construct_document(node)


def format_error(error: yaml.YAMLError) -> str:
    """An error as one short line: `line:column: problem`."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return shortened(" ".join(str(error).split()))
    mark = error.problem_mark or error.context_mark
    place = f"{mark.line + 1}:{mark.column + 1}: " if mark else ""
    problem = str(error.problem or error.context)
    return f"{place}{CLEAR_PROBLEMS.get(problem, problem)}"


def _check_keys(node: yaml.Node, seen: set[int]) -> None:
    """Raise a ConstructorError for keys that are not text, which JSON cannot represent."""
    # Aliases are one node: without `seen`, a few of them could be visited billions of times.
    if id(node) in seen or isinstance(node, yaml.ScalarNode):
        return
    seen.add(id(node))
    for item in node.value:
        key, value = item if isinstance(item, tuple) else (None, item)
        if key is not None and key.tag not in (f"{TAG}str", f"{TAG}merge"):
            key_text = (
                f"key {shortened(key.value)!r}"
                if isinstance(key, yaml.ScalarNode)
                else "a key that is a list or a mapping"
            )
            raise yaml.constructor.ConstructorError(
                None, None, f"{key_text} is not text; quote it", key.start_mark
            )
        _check_keys(value, seen)


def _value_error(node: yaml.Node, why: str) -> yaml.MarkedYAMLError:
    kind = node.tag.rpartition(":")[2]
    return yaml.constructor.ConstructorError(
        None, None, f"{shortened(str(node.value))!r} is no {kind} that {why}", node.start_mark
    )


def _unprintable(text: str, position: int) -> yaml.MarkedYAMLError:
    line, column = text.count("\n", 0, position), position - text.rfind("\n", 0, position) - 1
    mark = yaml.Mark("", position, line, column, None, 0)
    character = (
        "a NUL character" if text[position] == "\0" else f"the control character U+{ord(text[position]):04X}"
    )
    problem = f"{character} is not allowed in YAML; remove it, and save the file as UTF-8"
    return yaml.scanner.ScannerError(None, None, problem, mark)


def _error(event: yaml.Event, problem: str) -> yaml.MarkedYAMLError:
    return yaml.composer.ComposerError(None, None, problem, cast("yaml.Mark", event.start_mark))

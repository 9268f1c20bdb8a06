"""Messages of a bounded length, whatever text of strangers is in them."""

import re

WORD, LINE, LINES = 300, 2000, 200
"""Characters of a word and of a line, and lines, that a message shows; a digest has 64, a path seldom 200."""

LONG_WORD = re.compile(rf"\S{{{WORD + 1},}}")


def brief(text: str) -> str:
    """The message with long words and lines cut in their middle, and of very many lines the first."""
    lines = text.splitlines()
    cut_lines = [
        _cut(LONG_WORD.sub(lambda match: _cut(match[0], WORD), line), LINE) for line in lines[:LINES]
    ]
    return "\n".join(cut_lines + ([f"... {len(lines) - LINES} more lines"] if len(lines) > LINES else []))


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    end = most // 4
    return f"{text[: most - end]}...{text[-end:]}"

"""What a tokenizer.json may ask of the library that runs it: bounds that no tokenizer in use comes near.

The library does whatever the file says: it pads a text to 10^12 tokens, or doubles it with each of a hundred
steps, and at the end of memory it aborts the process. So the file is looked at before the library has it.
"""

import base64
import binascii
import math
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.models.model_json import shortened

PADDED = 1 << 20
"""Tokens that a text is padded to, or a template puts around it, at most."""

STEPS = 1000
"""Normalizers, pre-tokenizers, post-processors and decoders, together."""

PATTERNS = 1 << 20
"""Characters of their patterns, together."""

GROWTH = 10_000
"""Times that a text may become longer, in bytes, as far as the file tells."""

NORMALIZED = 32 << 20
"""Bytes that the added tokens may become; the library normalizes them as it reads the file."""

SPARSE = 4
"""An id may be so many times the number of tokens; each id up to the highest costs a row of weights."""

PARTS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
LISTS = ("normalizers", "pretokenizers", "processors", "decoders")

GROWS: Mapping[str, float] = {
    "NFC": 3, "NFD": 3, "NFKC": 3, "NFKD": 3, "BertNormalizer": 3, "Lowercase": 2, "ByteLevel": 2,
    "Metaspace": 4,
}  # fmt: skip
"""Types of steps -> how much longer they make a text of any language, roughly; others do not."""


def excesses(document: Mapping[str, Any], vocab_size: int) -> Iterator[str]:
    """What a tokenizer.json asks for beyond the limits, field first; values of a wrong type are passed over.

    `vocab_size` is the number of rows of the model's embedding.
    """
    steps = {part: list(_list_steps(document.get(part))) for part in PARTS}
    every = [step for each in steps.values() for step in each]
    # Stop here: the other checks visit every step, and the count is already beyond use.
    if len(every) > STEPS:
        yield f"{', '.join(PARTS)} have {len(every)} steps; at most {STEPS} are run"
        return
    if (length := sum(map(_count_pattern, every))) > PATTERNS:
        yield f"{', '.join(PARTS)} have patterns of {length} characters; at most {PATTERNS} are read"
    yield from _check_padding(document.get("padding"))
    yield from _check_growth(steps, document.get("added_tokens"))
    yield from _check_templates(steps["post_processor"])
    yield from _check_ids(document, vocab_size)


def sparse(table: Mapping[str, int], vocab_size: int) -> int:
    """The highest id that a table of tokens may have, where one is higher; otherwise 0."""
    most = SPARSE * max(vocab_size, len(table))
    return most if max(table.values(), default=0) > most else 0


def needs_trial(document: Mapping[str, Any]) -> bool:
    """Whether a regular expression is run on added tokens as the file is read: a trial tells its cost."""
    tokens = (item for item in _as_list(document.get("added_tokens")) if isinstance(item, dict))
    regex = any(
        "pattern" in step and _read_pattern(step)[1] for step in _list_steps(document.get("normalizer"))
    )
    return regex and any(map(_is_normalized, tokens))


def _list_steps(part: Any) -> Iterator[dict[str, Any]]:
    """The steps of a part, those inside of sequences too."""
    if not isinstance(part, dict):
        return
    inner = [item for name in LISTS for item in _as_list(part.get(name))]
    if not inner:
        yield part
    for item in inner:
        # recursion is bounded: `parse_json` has refused deeper nesting
        yield from _list_steps(item)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _as_number(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _read_pattern(step: Mapping[str, Any]) -> tuple[str, bool]:
    """A step's pattern, and whether it is a regular expression."""
    pattern = step.get("pattern")
    if not isinstance(pattern, dict):
        return (pattern, False) if isinstance(pattern, str) else ("", False)
    regex = "String" not in pattern
    value = pattern.get("Regex" if regex else "String")
    return (value if isinstance(value, str) else ""), regex


def _count_pattern(step: Mapping[str, Any]) -> int:
    return len(_read_pattern(step)[0])


def _check_padding(padding: Any) -> Iterator[str]:
    if not isinstance(padding, dict):
        return
    strategy = padding.get("strategy")
    sizes = {
        "padding.strategy.Fixed": strategy.get("Fixed") if isinstance(strategy, dict) else None,
        "padding.pad_to_multiple_of": padding.get("pad_to_multiple_of"),
    }
    for field, value in sizes.items():
        if _as_number(value) > PADDED:
            yield f"{field} is {shortened(value)}; a text is padded to {PADDED} tokens at most"


def _check_growth(steps: Mapping[str, list[dict[str, Any]]], added: Any) -> Iterator[str]:
    grown = dict[str, float]()
    for part in ("normalizer", "pre_tokenizer", "decoder"):
        grown[part] = _bounded_product(map(_estimate_growth, steps[part]))
    # They run one after the other on the same text, so their factors multiply.
    grown["normalizer and pre_tokenizer"] = grown["normalizer"] * grown["pre_tokenizer"]
    if excess := next((part for part, times in grown.items() if times > GROWTH), ""):
        yield (
            f"{excess} can make a text {_format_factor(grown[excess])} times longer (Replace, Prepend and "
            f"similar steps); at most {GROWTH} times is allowed"
        )
        return
    contents = (
        item.get("content") for item in _as_list(added) if isinstance(item, dict) and _is_normalized(item)
    )
    nbytes = sum(_count_bytes(text) for text in contents) * grown["normalizer"]
    if grown["normalizer"] > 1 and nbytes > NORMALIZED:
        yield (
            f"added_tokens can become {int(nbytes)} bytes by the normalizer; at most {NORMALIZED} are taken"
        )


def _is_normalized(token: Mapping[str, Any]) -> bool:
    """Whether the normalizer is run on an added token; unless the file says no, it may be."""
    return token.get("normalized") is not False


def _format_factor(times: float) -> str:
    return "more than 10^12" if math.isinf(times) or times > 1e12 else str(int(times))


def _bounded_product(factors: Iterator[float]) -> float:
    return math.prod(factors, start=1.0)


def _estimate_growth(step: Mapping[str, Any]) -> float:
    """How many times longer a step can make a text of a byte or more."""
    if "pattern" in step and "content" in step:
        (pattern, regex), length = _read_pattern(step), _count_bytes(step["content"])
        if regex or not pattern:  # it may match the nothing between two characters
            return 1.0 + length
        # at worst the text is nothing but the pattern, again and again
        return max(1.0, length / _count_bytes(pattern))
    if "precompiled_charsmap" in step:
        return max(1.0, _longest_replacement(step["precompiled_charsmap"]))
    if "prepend" in step:
        return 1.0 + _count_bytes(step["prepend"])
    return GROWS.get(str(step.get("type")), 1.0)


def _count_bytes(text: Any) -> int:
    return len(text.encode(errors="surrogatepass")) if isinstance(text, str) else 0


def _longest_replacement(charsmap: Any) -> float:
    """Bytes of the longest text that a SentencePiece table puts in the place of a character.

    The table begins with the size of an index; the texts stand behind that, each ended by a zero byte.
    """
    try:
        data = base64.b64decode(charsmap) if isinstance(charsmap, str) else b""
    except (binascii.Error, ValueError):  # the library says so
        return 1.0
    # an offset that lies gives an empty slice, and so no growth
    texts = data[4 + int.from_bytes(data[:4], "little") :]
    return float(max(map(len, texts.split(b"\0"))))


def _check_templates(processors: list[dict[str, Any]]) -> Iterator[str]:
    """Templates of post-processors, run one after the other on what the last one made."""
    most = {"single": 1.0, "pair": 1.0}
    for step in processors:
        special = step.get("special_tokens")
        tokens = special if isinstance(special, dict) else {}
        for name in most:
            pieces = [piece for piece in _as_list(step.get(name)) if isinstance(piece, dict)]
            special_pieces = [
                piece["SpecialToken"] for piece in pieces if isinstance(piece.get("SpecialToken"), dict)
            ]
            texts = [str(token.get("id")) for token in special_pieces]
            if tokens and (lost := next((text for text in texts if text not in tokens), None)) is not None:
                yield (
                    f"post_processor: its template '{name}' names {shortened(lost)}, which is none of its "
                    "special_tokens"
                )
                return
            added = sum(_count_ids(tokens.get(text)) for text in texts)
            # a template may hold the text itself several times; the next one repeats all of that
            most[name] = most[name] * max(1, sum("Sequence" in piece for piece in pieces)) + added
    if max(most.values()) > PADDED:
        yield (
            f"post_processor can make {_format_factor(max(most.values()))} tokens of one; at most {PADDED} "
            "are allowed"
        )


def _count_ids(token: Any) -> int:
    return len(_as_list(token.get("ids"))) if isinstance(token, dict) else 0


def _check_ids(document: Mapping[str, Any], vocab_size: int) -> Iterator[str]:
    model, added = document.get("model"), _as_list(document.get("added_tokens"))
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    table = vocabulary if isinstance(vocabulary, dict) else {}
    # a list (unigram) has its places as ids, so it cannot be sparse
    size = len(vocabulary) if isinstance(vocabulary, dict | list) else 0
    most = SPARSE * max(vocab_size, size + len(added))
    ids = {f"added_tokens[{n}].id": item.get("id") for n, item in enumerate(added) if isinstance(item, dict)}
    beyond = next(((field, value) for field, value in ids.items() if _as_number(value) > most), None)
    if beyond is None and (text := next((t for t, value in table.items() if _as_number(value) > most), None)):
        beyond = f"model.vocab: the id of {shortened(text)}", table[text]
    if beyond is not None:
        yield (
            f"{beyond[0]} is {shortened(beyond[1])}; ids up to {most} are taken, {SPARSE} times the number "
            "of tokens"
        )

"""What a calibration set consists of, and what in it deserves a second look."""

from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np

from calibration.data.drawing import TokenRow, TokenRows
from calibration.data.packing import Ids, Packed, begins, histogram
from calibration.data.rendering import Reader
from calibration.data.sameness import duplicates

FIRST_SAMPLES = 2
"""Samples of each source that are shown."""

FIRST_TOKENS = 96
"""Tokens of a sample or sequence that are shown."""

DOMINANT = 0.5
"""Share of the set's tokens that one row may give without a warning."""

MANY_DUPLICATES = 0.05
"""Share of repeated samples that is worth a warning."""


def report(rows: TokenRows, packed: Packed, reader: Reader) -> dict[str, Any]:
    """Counts, lengths, duplicates, special tokens, losses and the first samples; JSON."""
    sequences, seq_len = packed.tokens.shape
    places = [row.place for row in rows.samples]
    found = {
        "sources": list(rows.sources),
        "samples": len(rows.samples),
        "sample_tokens": int(sum(len(row.token_ids) for row in rows.samples)),
        "sample_length_histogram": histogram([row.full_tokens for row in rows.samples]),
        "sequences": sequences,
        "seq_len": seq_len,
        "packed": packed.lengths is None,
        "tokens": packed.num_tokens,
        "dropped_tail_tokens": packed.dropped_tail_tokens,
        "left_out_sequences": packed.left_out_sequences,
        "sequences_begin_with": begin(packed, reader),
        "longest_share": longest_share(rows.samples, packed),
        "truncated": truncated(rows.samples),
        "duplicates": {
            "exact": duplicates(places, [row.exact for row in rows.samples]),
            "normalised": duplicates(places, [row.normalised for row in rows.samples]),
        },
        "special_tokens": special_tokens(rows.samples, reader),
        "first_samples": first_samples(rows, reader),
        "first_sequence": shown(packed.tokens[0], reader),
    }
    return {**found, "warnings": warnings(found)}


def begin(packed: Packed, reader: Reader) -> dict[str, Any]:
    """The tokens that the tokenizer puts in front of a text, if any, and how many sequences have them."""
    return {"tokens": reader.prefix_text or None, "sequences": packed.begun(reader.prefix)}


def longest_share(samples: Sequence[TokenRow], packed: Packed) -> dict[str, Any]:
    """The row with most of the tokens that are in the sequences, and its share of them."""
    left, most = packed.row_tokens, (0, "")
    for row in samples:
        most = max(most, (min(left, len(row.token_ids)), row.place), key=lambda one: one[0])
        left -= min(left, len(row.token_ids))
    return {"place": most[1], "share": round(most[0] / packed.row_tokens, 6)}


def truncated(samples: Sequence[TokenRow]) -> dict[str, Any]:
    """Samples that lost tokens, and the share of all tokens that was lost."""
    lost = [row.full_tokens - len(row.token_ids) for row in samples]
    whole = sum(row.full_tokens for row in samples)
    return {
        "samples": sum(count > 0 for count in lost),
        "tokens": int(sum(lost)),
        "share": round(sum(lost) / whole, 6) if whole else 0.0,
    }


def special_tokens(samples: Sequence[TokenRow], reader: Reader) -> dict[str, Any]:
    """How often each special token stands in the samples, and how many do not start as texts do.

    Samples cut on the left are not asked for a BOS.
    """
    names, counts = reader.special_ids, Counter[int]()
    for row in samples:
        ids, times = np.unique(row.token_ids, return_counts=True)
        counts.update(dict(zip(ids.tolist(), times.tolist(), strict=True)))
    starts = [row.token_ids for row in samples if _starts(row)]
    return {
        "counts": {names[index]: counts[index] for index in names if counts[index]},
        "bos": reader.prefix_text or None,
        "bos_missing": sum(not begins(start, reader.prefix) for start in starts),
        "bos_doubled": sum(begins(start, 2 * reader.prefix) for start in starts) if reader.prefix else 0,
    }


def _starts(row: TokenRow) -> bool:
    """Whether the sample's first token is the row's: it is, unless the row was cut on the left."""
    return row.whole_start and len(row.token_ids) > 0


def first_samples(rows: TokenRows, reader: Reader) -> list[dict[str, Any]]:
    """The first samples of each source in the blend's order, as the model sees them."""
    chosen = []
    for source in range(len(rows.sources)):
        own = (row for row in rows.samples if row.source == source)
        chosen += [
            {"place": row.place, "tokens": shown(row.token_ids, reader)} for row in islice(own, FIRST_SAMPLES)
        ]
    return chosen


def shown(token_ids: Ids, reader: Reader) -> list[list[Any]]:
    """The first tokens of a sequence as text, each with whether it is special."""
    special = reader.special_ids
    ids = token_ids[:FIRST_TOKENS].tolist()
    return [[special.get(index) or reader.tokenizer.decode([index]), index in special] for index in ids]


def warnings(found: dict[str, Any]) -> list[str]:
    """What people should look at."""
    special, samples = found["special_tokens"], found["samples"]
    said = []
    if special["bos_missing"]:
        said.append(
            f"{special['bos_missing']} of {samples} samples do not start with {special['bos']}, which the "
            "tokenizer puts in front of text: check the chat template; the sequences begin with it still"
        )
    if special["bos_doubled"]:
        said.append(
            f"{special['bos_doubled']} of {samples} samples start with {special['bos']} twice: the text "
            "brings one and the tokenizer adds one"
        )
    longest = found["longest_share"]
    if longest["share"] > DOMINANT:
        said.append(
            f"{longest['place']} gives {longest['share']:.0%} of the set's tokens, so ranges are those of "
            "one document: add rows, lower seq_len without packing, or shorten it"
        )
    repeated = found["duplicates"]["normalised"]["count"]
    if repeated > MANY_DUPLICATES * samples:
        said.append(f"{repeated} of {samples} samples repeat another one but for case and white space")
    if found["truncated"]["share"] > 0.5:
        said.append(f"{found['truncated']['share']:.0%} of the tokens were cut off: raise seq_len, or pack")
    dates = sorted({source["chats"]["date"] for source in found["sources"] if source["chats"]["date"]})
    if dates:
        said.append(
            f"the chat template prints today's date: {dates[0]} was taken, set 'calibration.date' for another"
        )
    skipped = sum(len(source["skipped"]) for source in found["sources"])
    if skipped:
        said.append(f"{skipped} bad rows were skipped; they are listed under their source")
    return said

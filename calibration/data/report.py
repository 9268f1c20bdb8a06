"""The report of a calibration set: counts, samples and warnings."""

from collections import Counter
from collections.abc import Sequence
from itertools import islice

import numpy as np

from calibration.data.drawing import TokenRow, TokenRows
from calibration.data.packing import Ids, Packed, begins, histogram
from calibration.data.rendering import Reader
from calibration.data.report_values import (
    Beginning,
    Counts,
    LongestShare,
    Report,
    ShownSample,
    ShownToken,
    SpecialTokens,
    Truncation,
)
from calibration.data.sameness import duplicates

FIRST_SAMPLES = 2
"""Samples of each source in the report."""

FIRST_TOKENS = 96
"""Tokens of a sample or sequence in the report."""

DOMINANT = 0.5
"""Largest share of the set's tokens from one row without a warning."""

MANY_DUPLICATES = 0.05
"""Largest share of repeated samples without a warning."""


def report(rows: TokenRows, packed: Packed, reader: Reader) -> Report:
    """Counts, lengths, duplicates, special tokens, losses and the first samples; JSON."""
    sequences, seq_len = packed.tokens.shape
    places = [row.place for row in rows.samples]
    counts: Counts = {
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
    return {**counts, "warnings": warnings(counts)}


def begin(packed: Packed, reader: Reader) -> Beginning:
    """The tokenizer's prefix, if any, and the number of sequences that begin with it."""
    return {"tokens": reader.prefix_text or None, "sequences": packed.count_with_prefix(reader.prefix)}


def longest_share(samples: Sequence[TokenRow], packed: Packed) -> LongestShare:
    """The row with the most tokens in the sequences, and its share of them."""
    remaining, most = packed.row_tokens, (0, "")
    for row in samples:
        # Rows fill the sequences in order, so the last ones may count in part or not at all.
        most = max(most, (min(remaining, len(row.token_ids)), row.place), key=lambda entry: entry[0])
        remaining -= min(remaining, len(row.token_ids))
    return {"place": most[1], "share": round(most[0] / packed.row_tokens, 6)}


def truncated(samples: Sequence[TokenRow]) -> Truncation:
    """Number of cut samples, and the share of all tokens that was cut off."""
    lost_tokens = [row.full_tokens - len(row.token_ids) for row in samples]
    whole = sum(row.full_tokens for row in samples)
    return {
        "samples": sum(count > 0 for count in lost_tokens),
        "tokens": int(sum(lost_tokens)),
        "share": round(sum(lost_tokens) / whole, 6) if whole else 0.0,
    }


def special_tokens(samples: Sequence[TokenRow], reader: Reader) -> SpecialTokens:
    """Counts of each special token in the samples, and of samples with a missing or doubled BOS.

    Samples cut on the left are not expected to begin with BOS.
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
        # An empty prefix would begin every sample.
        "bos_doubled": sum(begins(start, 2 * reader.prefix) for start in starts) if reader.prefix else 0,
    }


def _starts(row: TokenRow) -> bool:
    """Whether the sample begins with the row's first token: it was not cut on the left."""
    return row.whole_start and len(row.token_ids) > 0


def first_samples(rows: TokenRows, reader: Reader) -> list[ShownSample]:
    """The first samples of each source in the blend's order, as the model sees them."""
    chosen: list[ShownSample] = []
    for source in range(len(rows.sources)):
        source_rows = (row for row in rows.samples if row.source == source)
        chosen += [
            {"place": row.place, "tokens": shown(row.token_ids, reader)}
            for row in islice(source_rows, FIRST_SAMPLES)
        ]
    return chosen


def shown(token_ids: Ids, reader: Reader) -> list[ShownToken]:
    """The first tokens of a sequence as text, each with whether it is special."""
    special = reader.special_ids
    ids = token_ids[:FIRST_TOKENS].tolist()
    return [[special.get(index) or reader.tokenizer.decode([index]), index in special] for index in ids]


def warnings(report_: Counts) -> list[str]:
    """Warnings about the set."""
    special, samples = report_["special_tokens"], report_["samples"]
    messages = []
    if special["bos_missing"]:
        messages.append(
            f"{special['bos_missing']} of {samples} samples do not start with {special['bos']}, which the "
            "tokenizer puts in front of text: check the chat template; the sequences begin with it still"
        )
    if special["bos_doubled"]:
        messages.append(
            f"{special['bos_doubled']} of {samples} samples start with {special['bos']} twice: the text "
            "brings one and the tokenizer adds one"
        )
    longest = report_["longest_share"]
    if longest["share"] > DOMINANT:
        messages.append(
            f"{longest['place']} gives {longest['share']:.0%} of the set's tokens, so ranges are those of "
            "one document: add rows, lower seq_len without packing, or shorten it"
        )
    repeated = report_["duplicates"]["normalised"]["count"]
    if repeated > MANY_DUPLICATES * samples:
        messages.append(f"{repeated} of {samples} samples repeat another one but for case and white space")
    if report_["truncated"]["share"] > 0.5:
        messages.append(
            f"{report_['truncated']['share']:.0%} of the tokens were cut off: raise seq_len, or pack"
        )
    dates = sorted({source["chats"]["date"] for source in report_["sources"] if source["chats"]["date"]})
    if dates:
        messages.append(
            f"the chat template prints today's date: {dates[0]} was taken, set 'calibration.date' for another"
        )
    skipped = sum(len(source["skipped"]) for source in report_["sources"])
    if skipped:
        messages.append(f"{skipped} bad rows were skipped; they are listed under their source")
    return messages

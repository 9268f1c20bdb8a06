"""The types of a calibration set's report.json, which the page and the registry's cards read."""

from typing import TypedDict

ShownToken = list[str | bool]
"""Text of a token, and whether it is special: a pair, as JSON has it."""


class ReadAs(TypedDict):
    """The columns that a source was read from."""

    kind: str
    columns: dict[str, str]


class ChatChanges(TypedDict):
    """Changes to a source's chats before they were rendered."""

    arguments_decoded: int
    date: str | None


class SourceReport(TypedDict):
    """Files, columns and counts of one source."""

    file: str
    digests: list[str]
    read_as: ReadAs
    rows: int
    skipped: list[str]
    taken: int
    tokens: int
    chats: ChatChanges


class Beginning(TypedDict):
    """The tokenizer's prefix as text, and the number of sequences that begin with it."""

    tokens: str | None
    sequences: int


class LongestShare(TypedDict):
    """The row with the most tokens, and its share of all tokens."""

    place: str
    share: float


class Truncation(TypedDict):
    """Cut samples, and the tokens that were cut off."""

    samples: int
    tokens: int
    share: float


class Duplicates(TypedDict):
    """Number of repeated samples, and pairs of places as examples."""

    count: int
    examples: list[list[str]]


class DuplicateKinds(TypedDict):
    """Samples with equal text, and with equal text but for case and white space."""

    exact: Duplicates
    normalised: Duplicates


class SpecialTokens(TypedDict):
    """Counts of special tokens, and of samples with a missing or doubled prefix."""

    counts: dict[str, int]
    bos: str | None
    bos_missing: int
    bos_doubled: int


class ShownSample(TypedDict):
    """The first tokens of a sample."""

    place: str
    tokens: list[ShownToken]


class Counts(TypedDict):
    """The report without its warnings."""

    sources: list[SourceReport]
    samples: int
    sample_tokens: int
    sample_length_histogram: dict[str, int]
    sequences: int
    seq_len: int
    packed: bool
    tokens: int
    dropped_tail_tokens: int
    left_out_sequences: int
    sequences_begin_with: Beginning
    longest_share: LongestShare
    truncated: Truncation
    duplicates: DuplicateKinds
    special_tokens: SpecialTokens
    first_samples: list[ShownSample]
    first_sequence: list[ShownToken]


class Report(Counts):
    """The whole report."""

    warnings: list[str]

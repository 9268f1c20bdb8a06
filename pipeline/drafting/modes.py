"""The modes of speculative decoding whose checkpoints this version writes."""

WITH_DRAFT = "draft_tokens_external"
"""A smaller model of its own proposes tokens."""
WITH_HEADS = ("medusa", "eagle")
"""Heads on the model's hidden states propose tokens."""
BUILT = (WITH_DRAFT, "lookahead_decoding", *WITH_HEADS)

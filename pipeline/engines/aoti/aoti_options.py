"""`engine.options` of backend `aoti`."""

from typing import Literal

from pydantic import PositiveInt

from recipes.frozen import Frozen


class Options(Frozen):
    """What only this backend understands."""

    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Type of activations and unquantized weights, and of the KV cache unless the recipe's `kv_cache` says
    fewer bits; `auto` is the checkpoint's own."""
    autotune: bool = False
    """Measure both ways to multiply one token, for every shape of linear layer, and keep the faster."""
    threads: Literal["auto"] | PositiveInt = "auto"
    """Threads per rank at run time; `auto` divides the host's cores among the ranks."""

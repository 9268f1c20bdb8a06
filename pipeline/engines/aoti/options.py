"""`engine.options` of backend `aoti`."""

from typing import Literal

from pydantic import PositiveInt

from recipes.schema import Frozen


class Options(Frozen):
    """What only this backend understands."""

    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Type of activations, KV cache and unquantized weights; `auto` is the checkpoint's own."""
    autotune: bool = False
    """Try several kernels for every matrix product while building (Inductor's max-autotune)."""
    threads: Literal["auto"] | PositiveInt = "auto"
    """Threads per rank at run time; `auto` divides the host's cores among the ranks."""

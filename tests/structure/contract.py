"""The order of the rooms of `pipeline`: who may import whom."""

CONTRACT: tuple[str, ...] = (
    "cli", "flows", "exchange", "rebuild", "run", "pages", "advice", "plan", "export", "child", "fit", "evaluate",
    "engines", "trtllm", "backend", "checkpoint", "drafting", "sources", "weights", "models", "step", "toolchains",
    "process", "errors", "units",
)  # fmt: skip
"""Rooms of `pipeline`, top floor first, each a folder as `pipeline` would import it: "cli", "export.triton".

A module may import modules of its own room and of rooms that stand later in this tuple, wherever the import
stands: also in functions and under TYPE_CHECKING. A folder that is not named belongs to the room of the
folder around it; the docstring-only `pipeline/__init__.py` belongs to none. While the tuple is empty, no
order is promised.

Two ways of naming a module are not imports, because they go through the process door and run in a child:
strings `module:function` of the table of kinds, and modules that `python -m` starts.
"""

"""Start scripts: every value quoted for the shell, every assumption checked before the server starts."""

import shlex
from collections.abc import Iterable, Sequence

from pipeline.backend.deployment import Deployment

HEAD = """#!/usr/bin/env bash
# {what}
# Written by `enginery export`; export again to change a value.
set -euo pipefail

refuse() {{ echo "error: $1" >&2; exit 4; }}
serve() {{  # runs the server, hands signals on to it, and ends as it ends
  "$@" & server=$!
  trap 'kill -TERM "$server"' TERM INT
  while true; do
    status=0; wait "$server" || status=$?
    kill -0 "$server" 2>/dev/null || exit "$status"
  done
}}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"""


def script(title: str, *parts: str) -> str:
    """A shell program of these parts."""
    return HEAD.format(what=title) + "".join(f"\n{part.rstrip()}\n" for part in parts)


def command(argv: Iterable[str]) -> str:
    """One command line with every word quoted, an option and its value to a line."""
    lines: list[list[str]] = [[]]
    for word in argv:
        # A word that begins with a hyphen starts an option, so its value stays on its line.
        if word.startswith("-") and lines[-1]:
            lines.append([])
        lines[-1].append(shlex.quote(word))
    return " \\\n  ".join(" ".join(line) for line in lines)


def needs_version(deployment: Deployment) -> str:
    """Refuses another TensorRT-LLM than the engine's: plans load in the version that built them only."""
    return f"""wanted={shlex.quote(deployment.version)}
ask='from importlib.metadata import version; print(version("tensorrt_llm"))'
found=$(python3 -c "$ask" 2>/dev/null) || found=none
[ "$found" = "$wanted" ] || refuse "the engine was built by TensorRT-LLM $wanted; this environment has $found"
"""


def needs_files(paths: Sequence[str]) -> str:
    """Refuses to start where what the configuration names is not there."""
    words = " ".join(shlex.quote(path) for path in paths)
    return f"""for file in {words}; do
  [ -e "$file" ] || refuse "$file is missing; put the export in its place, or export again with --root"
done
"""


def needs_gpus(deployment: Deployment) -> str:
    """Refuses another compute capability, and fewer GPUs than ranks."""
    count = deployment.world_size
    lines = [
        "gpus=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader) || refuse 'nvidia-smi finds "
        "no GPU'",
        'count=$(wc -l <<<"$gpus")',
        f'[ "$count" -ge {count} ] || refuse "the engine has {count} ranks; GPUs here: $count"',
    ]
    if deployment.sm is not None:
        # 90 is 9.0, 120 is 12.0: the last digit is the minor version
        major, minor = divmod(deployment.sm, 10)
        release = f"{major}.{minor}"
        lines.append(
            # sorted and joined: GPUs of two kinds give "8.99.0", which equals no release
            f'[ "$(sort -u <<<"$gpus" | tr -d "[:space:]")" = {release} ] || '
            f'refuse "the engine needs compute capability {release}; here: $(sort -u <<<"$gpus" | xargs)"'
        )
    return "\n".join(lines)

"""A C++ compiler for tests that compiles nothing twice: what it made of the same call is copied.

Runs as `compiler.py COMPILER DIRECTORY ARGUMENTS...`, with the standard library alone. The directory keeps object
files by a digest of the whole call, paths included, of the source file, and of the compiler's and the headers'
release. Whatever is no call of one source for one object file goes to the compiler as it is.
"""

import hashlib
import os
import shutil
import subprocess  # noqa: TID251 this is a compiler
import sys
from pathlib import Path

HEADERS = "torch/include"


def program(directory: Path, compiler: str) -> Path:
    """Writes an executable of the compiler's name into a directory; returns its path."""
    directory.mkdir(parents=True, exist_ok=True)
    script, draft = directory / Path(compiler).name, directory / f"{os.getpid()}.draft"
    draft.write_text(f'#!/bin/sh\nexec {sys.executable} -IS {__file__} {compiler} {directory} "$@"\n')
    draft.chmod(0o755)
    draft.rename(script)
    return script


def main(compiler: str, directory: Path, arguments: list[str]) -> int:
    """Compiles, or copies what an equal call made; returns the exit code."""
    sources = [argument for argument in arguments if argument.endswith(".cpp")]
    target = arguments[arguments.index("-o") + 1] if "-o" in arguments[:-1] else ""
    if "-c" not in arguments or len(sources) != 1 or not target.endswith(".o"):
        return subprocess.run([compiler, *arguments], check=False).returncode
    kept = directory / _digest(compiler, arguments, Path(sources[0]))
    if not kept.exists():
        code = subprocess.run([compiler, *arguments], check=False).returncode
        if code:
            return code
        draft = directory / f"{os.getpid()}.o"
        shutil.copyfile(target, draft)
        draft.rename(kept)
    else:
        shutil.copyfile(kept, target)
    return 0


def _digest(compiler: str, arguments: list[str], source: Path) -> str:
    releases = [
        Path(compiler).resolve(),
        *(
            Path(arg[2:]).parent / "version.py"
            for arg in arguments
            if arg.startswith("-I") and arg.endswith(HEADERS)
        ),
    ]
    stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in releases]
    call = hashlib.sha256(repr((stats, arguments)).encode())
    call.update(source.read_bytes())
    return call.hexdigest()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:]))

"""mypy reads the bodies of tests, annotated or not: what it must refuse there."""

import subprocess  # noqa: TID251 mypy is started as `make lint` does
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

WRONG = {
    "a wrong argument": ("digest.of_file(1)", "arg-type"),
    "too few arguments": ("digest.of_file()", "call-arg"),
    "a wrong attribute": ("digest.of_text('text')", "attr-defined"),
    "None taken for a value": ("re.match('a', 'b').group()", "union-attr"),
    "a name that is not there": ("tmp_path.undefined_name", "attr-defined"),
    "a generic type without parameters": ("x: dict = {}", "type-arg"),
    "an ignore of nothing": ("assert True  # type: ignore[arg-type]", "unused-ignore"),
}


@pytest.mark.slow
def test_wrong_code_of_a_test_is_an_error_of_lint(tmp_path: Path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "artifacts").symlink_to(ROOT / "artifacts")
    tests = [
        f"def test_{number}(tmp_path: Path):\n    {line}\n" for number, (line, _) in enumerate(WRONG.values())
    ]
    text = "import re\nfrom pathlib import Path\n\nfrom artifacts import digest\n\n\n" + "\n\n".join(tests)
    (tmp_path / "tests" / "test_wrong.py").write_text(text)
    argv = [
        sys.executable,
        "-m",
        "mypy",
        "--config-file",
        str(ROOT / "pyproject.toml"),
        "--cache-dir",
        "cache",
    ]
    done = subprocess.run(
        [*argv, "tests/test_wrong.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    errors = [line for line in done.stdout.splitlines() if line.startswith("tests/test_wrong.py")]
    assert [line.rpartition("[")[2].rstrip("]") for line in errors] == [code for _, code in WRONG.values()]

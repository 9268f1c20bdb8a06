"""Templates that loop, eat memory or break out: told as their fault, within the limits, and never a hang."""

import time
from collections.abc import Callable

import psutil
import pytest

from calibration.data.templates import Rendered, Request, Sandbox, TemplateRefused

pytestmark = pytest.mark.slow

MESSAGES = [{"role": "user", "content": "hi"}]
DATE = "2026-01-01"


def render(source: str, sandbox: Sandbox | None = None, messages=MESSAGES) -> Rendered:
    return (sandbox or Sandbox()).render(Request(source, messages, DATE, {"bos_token": "<s>"}))


LOOP = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"

TWINS = (
    "{% set n = namespace(x=[], y=[]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}"
    "{% set n.y = [n.y, n.y] %}{% endfor %}{{ n.x == n.y }}"
)
"""Two lists whose comparison takes 2**60 steps in one call of C, which no Python signal handler ends."""


@pytest.mark.parametrize("source", [LOOP, TWINS])
def test_a_template_that_does_not_end_is_stopped_after_five_seconds(source: str):
    sandbox, before = Sandbox(), time.monotonic()
    with pytest.raises(TemplateRefused, match=r"^takes more than 5 s$"):
        render(source, sandbox)
    assert time.monotonic() - before > 4.5
    assert render("{{ bos_token }}{{ messages[0].content }}", sandbox).text == "<s>hi"


DOUBLING = "{% set n = namespace(x='a' * 16) %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}"


@pytest.mark.parametrize(
    "source", ["{{ 'a' * 10**11 }}", DOUBLING, "{{ '%99999999999d' | format(1) }}", "{{ 'a' * 30000000 }}"]
)
def test_a_template_that_eats_memory_gets_no_more_than_its_share(source: str):
    sandbox = Sandbox()
    with pytest.raises(TemplateRefused, match=r"^takes more than 1 GB, or makes a text far longer"):
        render(source, sandbox)
    assert render("{{ messages[0].content }}", sandbox).text == "hi"
    assert psutil.Process(sandbox.pid).memory_info().rss < 1.2e9


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{{ ''.__class__.__mro__ }}", r"does what the sandbox forbids \(access to attribute '__class__'"),
        ("{{ messages.append(1) }}", r"does what the sandbox forbids \(access to attribute 'append'"),
        ("{{ range(10**9) | list }}", r"refuses the messages \(Range too big"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "nests too deeply"),
        ("a\n{% if %}", r"is not a Jinja template \(line 2: "),
        (r"{{ '\ud83d' }}", "prints half a surrogate pair"),
        ("{{ raise_exception('no robots') }}", r"refuses the messages \(no robots\)"),
        ("{{ 1 // 0 }}", r"refuses the messages \(.*zero"),
        ("{{ nothing.at.all }}", r"refuses the messages \('nothing' is undefined\)"),
        ("{% include 'other' %}", r"refuses the messages \(no loader"),
        ("{{ raise_exception('x' * 100000) }}", r"refuses the messages \(x{500}\)$"),
    ],
)
def test_what_a_template_may_not_do_is_told_as_its_fault(source: str, said: str):
    with pytest.raises(TemplateRefused, match=f"^{said}"):
        render(source)


def test_a_helper_that_dies_is_told_and_started_anew():
    sandbox = Sandbox()
    render("{{ 1 }}", sandbox)
    psutil.Process(sandbox.pid).kill()
    with pytest.raises(TemplateRefused, match=r"the process that runs it ended \(SIGKILL\)"):
        render("{{ 1 }}", sandbox)
    assert render("{{ 1 }}", sandbox).text == "1"


def test_the_helper_ends_with_the_one_who_started_it(run_python: Callable[[str], str]):
    code = (
        "from calibration.data.templates import Request, Sandbox; import os; kept = Sandbox();"
        "kept.render(Request('{{ 1 }}', [], '2026-01-01', {})); print(kept.pid, flush=True); os._exit(0)"
    )
    pid = int(run_python(code))
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not psutil.pid_exists(pid)


def test_a_large_row_passes_whole():
    text = "é\n" * 1_000_000
    assert render("{{ messages[0].content }}", messages=[{"role": "user", "content": text}]).text == text


def test_the_date_is_the_one_given_and_its_use_is_noted():
    assert render("{{ strftime_now('%d %b %Y') }}").text == "01 Jan 2026"
    assert render("{{ strftime_now('%d %b %Y') }}").dated
    assert not render("{% if strftime_now is defined %}dated{% endif %}").dated

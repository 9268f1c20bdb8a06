"""The sensitivity page for people: picture, proposal and ranking in one HTML file that needs nothing else."""

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape

from calibration.data.report_page import STYLE
from calibration.sensitivity.proposal import Proposal, Unit, bargains, natural, propose, ranked
from calibration.sensitivity.sensitivity_values import ScriptData, Sensitivity

PROXY = (
    "A proxy, not a measured loss: each linear is rounded alone, on a few rows of the calibration set, and "
    "the errors of different linears are added up as if they mattered equally and independently. It says "
    "where to look first. What an exception is worth for the model's output is what the gate measures."
)

OWN_STYLE = """
img { max-width: 100% } input { width: 24rem; max-width: 100% } td, th { font-variant-numeric: tabular-nums }
td + td, th + th { text-align: right } tr.kept td { background: var(--warn) }
pre { background: var(--odd); padding: .8rem; overflow-x: auto }
section { display: none } section.shown { display: block }
"""

SCRIPT = """
const data = JSON.parse(document.getElementById("data").textContent);
const percent = share => (100 * share).toFixed(1) + " %";
function propose(name, count) {
  const found = data[name], kept = found.bargains.slice(0, count);
  const sum = key => kept.reduce((total, unit) => total + unit[key], 0);
  const names = new Set([...found.forced, ...kept.flatMap(unit => unit.linears)]);
  const lines = found.order.filter(linear => names.has(linear)).map(linear => `    ${linear}: none`);
  const yaml = lines.length
    ? ["format:", `  default: ${name}`, "  except:", ...lines] : [`format: ${name}`];
  const section = document.getElementById(name);
  section.querySelector("output").textContent =
    `${count} of ${found.units} units stay at the source dtype: ${percent(sum("gain"))} of the summed ` +
    `error goes, for ${Number((sum("added") / 1e6).toPrecision(3))} MB more ` +
    `(${percent(sum("added") / found.bytes)} of the linears)`;
  section.querySelector("pre").textContent = yaml.join("\\n") + "\\n";
  const labels = new Set(kept.map(unit => unit.label));
  for (const row of section.querySelectorAll("tbody tr"))
    row.classList.toggle("kept", labels.has(row.dataset.unit));
}
function show(name) {
  for (const one of document.querySelectorAll("section")) one.classList.toggle("shown", one.id === name);
  document.getElementById("format").value = name;
}
document.getElementById("format").addEventListener("change", event => show(event.target.value));
for (const name of Object.keys(data)) {
  const slider = document.querySelector(`#${name} input`);
  slider.addEventListener("input", () => propose(name, Number(slider.value)));
}
const asked = location.hash.slice(1);
show(asked in data ? asked : Object.keys(data)[0]);
"""


def page(document: Sensitivity, heatmap: bytes) -> str:
    """HTML for the contents of sensitivity.json and its picture."""
    units = [Unit.of(unit) for unit in document["units"]]
    proposals = [propose(units, name) for name in document["formats"]]
    linears = document["linears"]
    options = "".join(f"<option>{escape(name)}</option>" for name in document["formats"])
    data = {item.format: _script_data(units, item) for item in proposals}
    left_out = "".join(f"<li>{escape(f'{name}: {why}')}</li>" for name, why in document["left_out"].items())
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Sensitivity</title>',
            f"<style>{STYLE}{OWN_STYLE}</style></head><body>",
            "<h1>What quantization costs, linear by linear</h1>",
            f"<p>{len(linears)} linears of {document['model']['layers']} layers; the error is "
            "|X W' - Q(X) Q(W)'|&sup2; / |X W'|&sup2; on up to "
            f"{max(item['rows'] for item in linears)} rows X that the linear saw. Linears that runtimes fuse "
            "are one unit, whose error is the sum of theirs.</p>",
            f'<p class="faint">{PROXY}</p>',
            f"<ul>{left_out}</ul>" if left_out else "",
            f'<p><label>Format <select id="format">{options}</select></label></p>',
            *(_section(units, item, first=item is proposals[0]) for item in proposals),
            "<h2>Every format</h2>",
            f'<img alt="error by layer and linear" src="data:image/png;base64,{_base64(heatmap)}">',
            f'<script type="application/json" id="data">{_embedded(data)}</script>',
            f"<script>{SCRIPT}</script></body></html>\n",
        ]
    )


def _section(units: Sequence[Unit], proposal: Proposal, *, first: bool) -> str:
    """One format: a slider, the proposal, and every unit, the largest error first."""
    name, most = proposal.format, len(bargains(units, proposal.format, proposal.wider))
    rows = [
        f'<tr data-unit="{escape(row["unit"])}"{" class=kept" if row["proposed"] else ""}>'
        f"<td>{escape(row['unit'])}</td><td>{row['error']:.3g}</td><td>{row['share_%']:.1f} %</td>"
        f"<td>{row['added_MB']:.3g}</td></tr>"
        for row in ranked(units, proposal)
    ]
    return (
        f'<section id="{escape(name)}"{" class=shown" if first else ""}><h2>{escape(name)}</h2>'
        f'<p><label>Units left at the source dtype<br><input type="range" min="0" max="{most}" '
        f'value="{len(proposal.units)}"></label><br><output>{escape(proposal.summary)}</output></p>'
        f"<p>Pastes into the recipe:</p><pre>{escape(proposal.yaml)}</pre>"
        "<table><thead><tr><th>unit</th><th>error</th><th>share</th><th>MB to leave it</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></section>"
    )


def _script_data(units: Sequence[Unit], proposal: Proposal) -> ScriptData:
    """What the page's script needs of one format."""
    name = proposal.format
    total = sum(unit.errors[name] for unit in units if name in unit.errors)
    return {
        "units": sum(name in unit.errors for unit in units),
        "bytes": proposal.total_bytes,
        "forced": [linear for unit in proposal.forced for linear in unit.linears],
        "order": sorted((linear for unit in units for linear in unit.linears), key=natural),
        "bargains": [
            {
                "label": unit.label,
                "linears": unit.linears,
                "gain": (unit.errors[name] - unit.errors["none"]) / total,
                "added": unit.sizes["none"] - unit.sizes[name],
            }
            for unit in bargains(units, name, "none")
        ],
    }


def _embedded(value: Mapping[str, ScriptData]) -> str:
    """JSON that cannot end the script element it stands in."""
    # A module's name could contain "</script>".
    return json.dumps(value).replace("<", "\\u003c")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()

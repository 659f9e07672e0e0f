"""The report as one HTML file: the verdict, the plots, the figures, the decisions. No script, no outside link."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, StrictUndefined

from medloop_services.report.plots import accuracy_plot, domains_plot, statistics_plot
from medloop_services.report.summary import Summary
from medloop_services.report.where_section import STYLE, where_section

_TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>medloop · {{ facts.scenario }}</title>
<style>
{{ style | safe }}
 .verdict { display: inline-block; padding: .15rem .6rem; border-radius: .3rem; color: #fff;
            background: {{ "#2b8a3e" if facts.closed else "#c92a2a" }} }
</style></head><body>
<h1>medloop · {{ facts.scenario }} <span class="verdict">{{ "closed" if facts.closed else "open" }}</span></h1>
<p class="muted">{{ facts.data }} · seed {{ facts.seed }} · {{ facts.images }} images</p>
{% for reason in facts.reasons_open %}<p><strong>Open:</strong> {{ reason }}.</p>{% endfor %}
<p>{{ story }}</p>
{{ accuracy | safe }}
{{ statistics | safe }}
{{ domains | safe }}
{{ where | safe }}
<h2>Why</h2>
<table>{% for sentence in facts.evidence %}<tr><td>{{ sentence }}</td></tr>{% endfor %}</table>
<h2>On the test sets</h2>
<table><tr><th>model and set</th><th>n</th><th>accuracy</th><th>balanced accuracy</th><th>AUC</th></tr>
{% for row in rows %}<tr><td>{{ row.name }}</td><td class="number">{{ row.n }}</td>
<td class="number">{{ row.accuracy }}</td><td class="number">{{ row.balanced }}</td><td class="number">{{ row.auc }}</td></tr>{% endfor %}
</table>
<p class="muted">In brackets: 95 % bootstrap interval over the test set's images.</p>
<h2>What happened</h2>
<table><tr><th>image</th><th>second</th><th>step</th><th></th></tr>
{% for moment in moments %}<tr><td class="number">{{ moment.position }}</td><td class="number">{{ "%.1f" | format(moment.seconds) }}</td>
<td>{{ moment.name }}</td><td>{{ moment.text }}</td></tr>{% endfor %}</table>
<h2>Decisions on record</h2>
<table><tr><th>#</th><th>decision</th><th>version</th><th>reason</th><th>evidence</th></tr>
{% for record in audit %}<tr><td class="number">{{ record.number }}</td><td>{{ record.decision }}</td><td>{{ record.version }}</td>
<td>{{ record.reason }}</td><td class="muted">{% for name, value in record.evidence.items() %}{{ name }} {{ "%.3g" | format(value) if value is float else value }}; {% endfor %}</td></tr>{% endfor %}</table>
<h2>Events</h2>
<table>{% for name, value in facts.events.items() %}<tr><td>{{ name }}</td><td class="number">{{ value }}</td></tr>{% endfor %}</table>
</body></html>
"""

_NAMES = {
    "before": "base model, before the drift",
    "drifted": "base model, new domain",
    "after": "released model, new domain",
    "oracle": "same network trained offline on both domains, new domain",
    "old_domain_before": "base model, old domain",
    "old_domain_after": "released model, old domain",
}


def write_report(summary: Summary, path: Path) -> None:
    """Write the report of a run to an HTML file."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    trace = summary.trace
    text = environment.from_string(_TEMPLATE).render(
        style=STYLE,
        facts=summary.as_json(),
        where=where_section(summary.where),
        story=story(summary),
        accuracy=accuracy_plot(summary),
        statistics=statistics_plot(summary),
        domains=domains_plot(summary),
        rows=_rows(summary),
        moments=trace.moments,
        audit=[trace.audit[number] for number in sorted(trace.audit)],
    )
    path.write_text(text, encoding="utf-8")


def story(summary: Summary) -> str:
    """Return one paragraph that says what happened."""
    facts = summary.as_json()
    noticed = facts["detected_at_image"]
    text = f"The stream changed at image {summary.drift_at_image}; " + (
        "nothing alarmed after it." if noticed is None else f"the first alarm was at image {noticed}."
    )
    if facts["diagnosed_at_image"] is None:
        return f"{text} No adaptation was requested."
    text += (
        f" {facts['detector']} fired first where {facts['diagnosis']} was diagnosed, at image "
        f"{facts['diagnosed_at_image']}; strategy: {facts['strategy']}."
    )
    if facts["released_version"] is None:
        return f"{text} No new version was released."
    return (
        f"{text} Version {facts['released_version']} serves every device since image "
        f"{summary.drift_at_image + facts['images_to_recover']}."
    )


def _rows(summary: Summary) -> list[dict[str, str]]:
    return [
        {
            "name": _NAMES[name],
            "n": str(e.n),
            "accuracy": _percent(e.accuracy.value, e.accuracy.low, e.accuracy.high),
            "balanced": _percent(
                e.balanced_accuracy.value, e.balanced_accuracy.low, e.balanced_accuracy.high
            ),
            "auc": "" if e.auc is None else f"{e.auc:.3f}",
        }
        for name, e in summary.domains
        if e is not None
    ]


def _percent(value: float, low: float, high: float) -> str:
    return f"{100 * value:.1f} % ({100 * low:.1f}–{100 * high:.1f})"

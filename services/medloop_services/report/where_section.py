"""Where drift is, as a section of a report: a table of alarms and the pictures, each device's folded away."""

from __future__ import annotations

from jinja2 import Environment, StrictUndefined

from medloop_services.report.standard_scores import MOST_DEVIATIONS
from medloop_services.report.where import Alarm, Device, Where
from medloop_services.report.where_plots import MOST_DEVICES, file_name, where_pictures

STYLE = """ body { font: 16px/1.5 system-ui, sans-serif; color: #1f2933; max-width: 960px;
        margin: 2.5rem auto; padding: 0 1rem }
 h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem }
 table { border-collapse: collapse; width: 100%; font-size: .92rem }
 th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #e4e7eb; vertical-align: top }
 td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
 svg { width: 100%; height: auto } .muted { color: #616e7c }
 details { margin: .6rem 0 } summary { cursor: pointer }"""
"""What all reports look like."""

_TEMPLATE = """<h2>Where drift is</h2>
<p>{{ sentence }}</p>
{% if rows %}<table>
<tr><th>device</th><th>alarm at image</th><th>changed since image</th><th>seen in</th><th>why</th></tr>
{% for row in rows %}<tr><td>{{ row.device }}</td><td class="number">{{ row.alarm }}</td>
<td class="number">{{ row.since }}</td><td>{{ row.statistic }}</td><td>{{ row.why }}</td></tr>
{% endfor %}</table>
<p class="muted">Images are counted over the whole stream. In brackets: 95 % interval of the change point, one
change of the mean of that statistic's standard scores; images that resemble their neighbours make it too
short. Distance of an image: root mean square of its standard scores over all statistics.</p>{% endif %}
{{ layers | safe }}
{% for device in devices %}<details{{ " open" if loop.first else "" }}><summary>{{ device.name }}</summary>
{{ device.course | safe }}
{{ device.images | safe }}
</details>{% endfor %}
"""


def where_section(where: Where) -> str:
    """Return an HTML fragment that shows which devices changed since when, and which images."""
    pictures = where_pictures(where)
    devices = [
        {
            "name": device.device_id,
            "course": pictures[f"{file_name(device.device_id)}-course"],
            "images": pictures.get(f"{file_name(device.device_id)}-images", ""),
        }
        for device in where.alarmed[:MOST_DEVICES]
    ]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.from_string(_TEMPLATE).render(
        sentence=sentence(where),
        rows=[row(device, alarm) for device in where.alarmed for alarm in device.alarms],
        layers=pictures.get("layers", ""),
        devices=devices,
    )


def sentence(where: Where) -> str:
    """Return one sentence: how many devices alarmed, and which first."""
    if not where.alarmed:
        return f"None of {len(where.devices)} devices alarmed."
    first = where.alarmed[0]
    return (
        f"{len(where.alarmed)} of {len(where.devices)} devices alarmed, {first.device_id} first, "
        f"at image {first.alarms[0].position}."
    )


def row(device: Device, alarm: Alarm) -> dict[str, str]:
    """Return an alarm in words: its device, when, since when, in which statistic, and why."""
    onset = alarm.onset
    early = device.known is not None and alarm.sequence < device.known
    return {
        "device": device.device_id,
        "alarm": f"{alarm.position}{' (before the true change)' if early else ''}",
        "since": f"{onset.position} ({onset.position_low}–{onset.position_high})" if onset else "not known",
        "statistic": f"{onset.statistic}: {in_words(onset.before)} to {in_words(onset.after)}"
        if onset
        else "",
        "why": "; ".join(alarm.evidence),
    }


def in_words(score: float) -> str:
    """Return a standard score with its unit; one that stands where scores are cut is at least that."""
    return f"{score:+.1f} σ" if abs(score) < MOST_DEVIATIONS else f"{score:+.0f} σ or more"

"""What `medloop detect` found, as one HTML page and as figures for `--json`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from medloop_services.detecting.false_alarms import FalseAlarmRate
from medloop_services.detecting.source import Source
from medloop_services.detecting.watching import Watched, first_reason
from medloop_services.report.where_section import STYLE, where_section

_TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>medloop · {{ facts.stream }}</title>
<style>
{{ style | safe }}
</style></head><body>
<h1>medloop detect · {{ facts.stream }}</h1>
<p class="muted">{{ facts.data }} · model {{ facts.model }} · {{ facts.images }} images</p>
{{ where | safe }}
<h2>How often an alarm is false</h2>
<p>Promised: one false alarm of a device in {{ facts.images_per_false_alarm }} images.</p>
{% if rates %}<table><tr><th>stream</th><th>alarms</th><th>images</th><th>images between two</th>
<th></th></tr>
{% for rate in rates %}<tr><td>{{ rate.stream }}</td><td class="number">{{ rate.alarms }}</td>
<td class="number">{{ rate.images }}</td><td class="number">{{ rate.between }}</td>
<td>{{ rate.verdict }}</td></tr>
{% endfor %}</table>
<p class="muted">Counted on {{ facts.held_out_images }} held-out images that calibration did not see, drawn
with replacement into streams in which nothing changes. In brackets: exact 95 % Poisson interval. Detectors of
images; those of labels have their own contract.</p>{% endif %}
{% if facts.refused %}<p><strong>{{ facts.refused }} events were refused</strong>, the first one:
{{ facts.first_refusal }}</p>{% endif %}
</body></html>
"""

_KINDS = {"iid": "independent images", "correlated": "classes that stick together"}


@dataclass(frozen=True, eq=False)
class Findings:
    """All that a detection found.

    Attributes:
        source, watched: the stream and what monitoring made of it.
        data, model: what they were, in one line each.
        promised: images between false alarms of a device, as set.
        held_out: images on which the rates were measured.
        rates: one a kind of stream; none where they were not measured.
    """

    source: Source
    watched: Watched
    data: str
    model: str
    promised: int
    held_out: int
    rates: Sequence[FalseAlarmRate]

    def as_json(self) -> dict[str, Any]:
        """Return plain values; a figure that is infinite, as no alarm was counted, is null."""
        where = self.watched.where
        return {
            "stream": self.source.name,
            "data": self.data,
            "model": self.model,
            "model_version": where.version,
            "images": self.source.images,
            "refused": len(self.watched.refused) + self.source.unreadable,
            "first_refusal": first_reason(self.watched.refused),
            "changed_at_image": self.source.known_position,
            "devices": where.as_json(),
            "images_per_false_alarm": self.promised,
            "held_out_images": self.held_out,
            "false_alarms": [
                {
                    "stream": rate.kind.value,
                    "alarms": rate.alarms,
                    "images": rate.images,
                    "images_per_alarm": _finite(rate.images_per_alarm),
                    "low": _finite(rate.low),
                    "high": _finite(rate.high),
                    "contract_kept": rate.keeps(self.promised),
                }
                for rate in self.rates
            ],
        }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def rate_row(rate: FalseAlarmRate, promised: int) -> dict[str, str]:
    """Return a measured rate in words."""
    high = f"{rate.high:,.0f}" if math.isfinite(rate.high) else "∞"
    mean = f"{rate.images_per_alarm:,.0f}" if rate.alarms else "none seen"
    return {
        "stream": _KINDS[rate.kind.value],
        "alarms": str(rate.alarms),
        "images": f"{rate.images:,}",
        "between": f"{mean} ({rate.low:,.0f}–{high})",
        "verdict": "as promised, or rarer" if rate.keeps(promised) else "MORE OFTEN than promised",
    }


def write_page(findings: Findings, path: Path) -> None:
    """Write what was found to an HTML file."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    text = environment.from_string(_TEMPLATE).render(
        style=STYLE,
        facts=findings.as_json(),
        where=where_section(findings.watched.where),
        rates=[rate_row(rate, findings.promised) for rate in findings.rates],
    )
    path.write_text(text, encoding="utf-8")

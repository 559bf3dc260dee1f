"""Build `report.html`: one file with both languages, its style, its pictures and a few lines of script."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jinja2
from markupsafe import Markup, escape

from jaxplm.errors import visible
from jaxplm.reporting.comparison import plots
from jaxplm.reporting.comparison.content import TEXT_SETS, contents, template_values
from jaxplm.reporting.comparison.findings import Findings, Gain
from jaxplm.reporting.comparison.recommendation import Message, Verdict
from jaxplm.reporting.comparison.wording import LANGUAGES, Wording

_WORDINGS = {
    language: Wording(
        language,
        lambda text: str(escape(text)),
        lambda name: f'<bdi class="name">{name}</bdi>',
        lambda code: f"<code>{code}</code>",
    )
    for language in LANGUAGES
}


def html(findings: Findings, verdict: Verdict) -> str:
    """Return the page. Whatever comes from data is escaped, and nothing is loaded from elsewhere."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jaxplm.reporting.comparison"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    variables = plots.variables(findings)
    environment.globals |= {
        "t": in_both,
        "say": said,
        "both": shown,
        "english": _english,
        "attributes": _attributes,
        "picture": picture,
        "plots": plots,
        "bar": partial(_bar, findings),
        "variable": lambda name: Markup(variables[name]),
        "isnan": math.isnan,
        "set_name": _set_name,
    }
    values = template_values(findings, verdict) | {"contents": contents(findings, verdict)}
    return environment.get_template("report.html.j2").render(values)


def in_both(key: str, **values: Any) -> Markup:
    """Return a message in both languages, of which the page shows one."""
    return _spans(lambda one: one.text(key, values))


def said(message: Message) -> Markup:
    """Return a message of the verdict in both languages."""
    return in_both(message.key, **message.values)


def shown(value: Any) -> Markup:
    """Return a value in both languages; once where they write it the same way."""
    return _spans(lambda one: one.shown(value))


def picture(plot: plots.Plot) -> Markup:
    """Return a plot as SVG, whose texts matplotlib has escaped."""
    return Markup(plots.svg(plot))


def _spans(text: Callable[[Wording], str]) -> Markup:
    """Return a text in both languages. The texts come from a `Wording`, which escapes what is data."""
    texts = [text(_WORDINGS[language]) for language in LANGUAGES]
    if len(set(texts)) == 1:
        return Markup(texts[0])
    return Markup(
        "".join(f'<span lang="{language}" data-l>{one}</span>' for language, one in zip(LANGUAGES, texts, strict=True))
    )


def _english(key: str) -> str:
    return _WORDINGS["en"].text(key)


def _attributes(name: str, key: str) -> Markup:
    """Return a message in both languages as attributes, from which the script takes one."""
    return Markup(" ").join(
        Markup('data-{}-{}="{}"').format(name, language, _WORDINGS[language].text(key)) for language in LANGUAGES
    )


def _set_name(name: str) -> Markup:
    return in_both(f"vocabulary.{name}") if name in TEXT_SETS else Markup("<bdi>{}</bdi>").format(visible(name))


def _visible(value: Any) -> Any:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _bar(findings: Findings, gain: Gain) -> Markup:
    """Return the places of an interval, its middle and 0 as CSS variables, on one scale for all ways.

    `random` lies far below the others and would leave them no room: its bar is cut.
    """
    shown = [one.gain for one in findings.done if one.gain and one.way.name != "random"]
    ends = [0.0] + [end for one in shown for end in (one.low, one.high) if math.isfinite(end)]
    least, most = min(ends), max(ends)

    def place(value: float) -> float:
        within = min(max(value, least), most)
        return 4 + 92 * (within - least) / (most - least) if math.isfinite(value) and most > least else 50.0

    low, high, mean, zero = (place(value) for value in (gain.low, gain.high, gain.mean, 0.0))
    return Markup(f"--low:{low:.1f}%;--width:{max(high - low, 1):.1f}%;--mean:{mean:.1f}%;--zero:{zero:.1f}%")

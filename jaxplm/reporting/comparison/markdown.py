"""Build `report.md` and `report.ko.md`, whose pictures are the files in `plots/`."""

import re
from typing import Any

import jinja2

from jaxplm.reporting.comparison.comparison import Cost
from jaxplm.reporting.comparison.content import TEXT_SETS, template_values
from jaxplm.reporting.comparison.findings import Findings, Outcome
from jaxplm.reporting.comparison.recommendation import Message, Verdict
from jaxplm.reporting.comparison.wording import Method, Seconds, Wording
from jaxplm.reporting.tables import code, code_block, one_line

_BLOCK = re.compile(r"^([#+=:-]|\d+(?=[.)]))")  # what begins a heading or a list


class Safe(str):
    """Text that is Markdown already."""


def at_line_start(text: str) -> Safe:
    """Return plain text as Markdown that stays a text where it begins a line."""
    return Safe(
        _BLOCK.sub(lambda found: "\\" + found[0] if not found[0].isdigit() else found[0] + "\\", one_line(text))
    )


def markdown(findings: Findings, verdict: Verdict, language: str, plots: dict[str, str]) -> str:
    """Return the report in a language.

    Args:
      findings: what to show.
      verdict: the recommendation.
      language: "en" or "ko".
      plots: {name of a plot: its path from the report}.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jaxplm.reporting.comparison"),
        autoescape=False,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_escaped,
    )
    words = Wording(language, one_line, lambda name: f"**{name}**", lambda name: f"`{name}`")

    def say(message: Message) -> Safe:
        return Safe(words.text(message.key, message.values))

    def way(outcome: Outcome) -> Safe:
        name = one_line(outcome.way.name)
        return Safe(name if len(findings.methods) < 2 else f"{name} ({words.shown(Method(outcome.way.method))})")

    def time(cost: Cost) -> Safe:
        return Safe(words.shown(Seconds(cost.seconds)) if cost.seconds > 0 else "–")

    def image(name: str, key: str) -> Safe:
        return Safe(f"![{words.text(key)}]({plots[name]})" if name in plots else "")

    environment.globals |= {
        "image": image,
        "way": way,
        "time": time,
        "line": at_line_start,
        "say": say,
        "t": lambda key, **values: Safe(words.text(key, values)),
        "both": lambda value: Safe(words.shown(value)),
        "code": lambda text: Safe(code(text).replace("|", r"\|")),
        "fence": lambda lines: Safe(code_block("\n".join(lines), "bash")),
        "set_name": lambda name: words.text(f"vocabulary.{name}") if name in TEXT_SETS else name,
    }
    text = environment.get_template("report.md.j2").render(template_values(findings, verdict) | {"plots": plots})
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _escaped(value: Any) -> Any:
    return one_line(value) if isinstance(value, str) and not isinstance(value, Safe) else value

"""The model card: README.md of an exported model, a YAML header in the hub's terms and what a reader has to know."""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxplm.reporting.facts import Facts
from jaxplm.reporting.report import headline, scores_markdown, section_markdown
from jaxplm.reporting.tables import one_line, scores


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
    """What a model card says beyond the facts of the run."""

    usage: str  # Python code that loads and calls the model in "path/to/this/directory"
    pipeline_tag: str = ""  # the hub's name for what the model does: "fill-mask"
    library: str = "transformers"  # that loads the model; "jaxplm" where transformers has no class for it
    license: str = ""  # an identifier of the hub's list; "" is printed as unknown
    languages: Sequence[str] = ()  # ISO 639-1 codes; () is left out


def model_card(facts: Facts, card: Card, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the text of `export/README.md`.

    Args:
      facts: of the run.
      card: of the exported model.
      rows: as in metrics.jsonl.
    """
    found = scores(rows, facts.exported_step)
    origin = f"`{facts.base_model}`" if facts.base_model else "random weights"
    sentence = headline(facts, found)
    parts = [
        _header(facts, card),
        f"# {one_line(facts.title)}",
        f"An encoder made by jaxplm from {origin} with the recipe `{facts.recipe}`." + (f" {sentence}" if sentence else ""),
        "## Use",
        f"```python\n{card.usage}\n```",
    ]
    if card.library != "transformers":
        parts.append("transformers has no class for all of it.")
    if found:
        masks = " Masked-token scores use masks that the seed fixes." if any(score.name == "perplexity" for score in found) else ""
        parts += ["## Scores", scores_markdown(found), f"Measured before the first step and with these weights.{masks}"]
    for section in facts.sections:
        if section.in_card:
            parts += section_markdown(section, with_figures=False)
    licence = f"Licence: {card.license}." if card.license else (
        "No licence is recorded: the terms of the base model and of the training texts apply.")
    parts += [
        "## Limits",
        "The model repeats the biases and errors of the texts it was trained on, and knows nothing else. Look at its "
        f"answers on your own texts before you rely on them. {licence}",
        "## Command",
        f"```\n{facts.command}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _header(facts: Facts, card: Card) -> str:
    lines = ["---", f"library_name: {card.library}"]
    if card.pipeline_tag:
        lines.append(f"pipeline_tag: {card.pipeline_tag}")
    if _is_hub_id(facts.base_model):  # the hub refuses anything else here
        lines.append(f"base_model: {facts.base_model}")
    lines.append(f"license: {json.dumps(card.license) if card.license else 'unknown'}")
    if card.languages:
        lines += ["language:", *(f"  - {json.dumps(code)}" for code in card.languages)]
    lines += ["tags:", "  - jaxplm", f"  - {facts.recipe.replace('_', '-')}", "---"]
    return "\n".join(lines)


def _is_hub_id(path: str) -> bool:
    name = r"[A-Za-z0-9][\w.-]*"
    return bool(re.fullmatch(rf"{name}(/{name})?", path)) and not Path(path).exists()

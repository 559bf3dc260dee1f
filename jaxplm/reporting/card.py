"""The model card: README.md of an exported model. A YAML header by the hub's own library, and what a reader has to know."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxplm.config import Config
from jaxplm.reporting.facts import Facts
from jaxplm.reporting.report import headline, scores_markdown, section_markdown
from jaxplm.reporting.tables import Score, code, code_block, one_line, scores
from jaxplm.scores.names import title

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

_HUB = "hf:"  # prefix of a data set on the hub, see `jaxplm.data.sources.specs`

FILL_MASK = '''from transformers import pipeline

fill = pipeline("fill-mask", "path/to/this/directory")
fill(f"... {fill.tokenizer.mask_token} ...")'''
LOAD = '''import jaxplm

model, tokenizer = jaxplm.load("path/to/this/directory")'''


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
    """How an exported model is used."""

    usage: str  # Python code that loads and calls the model in "path/to/this/directory"
    pipeline_tag: str = ""  # the hub's name for what the model does: "fill-mask"
    library: str = "transformers"  # that loads the model; "jaxplm" where transformers has no class for it
    tags: Sequence[str] = ()  # further ones


def model_card(config: Config, facts: Facts, card: Card, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the text of `export/README.md`.

    Args:
      config: of the run; `config.export` has what a user says of the model.
      facts: of the run.
      card: how the model is used.
      rows: as in metrics.jsonl.
    """
    found = scores(rows, facts.exported_step)
    origin = code(config.model.path) if config.model.path else "random weights"
    sentence = headline(facts, found)
    parts = [
        card_header(config, card, found),
        f"# {one_line(config.export.name or facts.title)}",
        f"An encoder made by jaxplm from {origin} with the recipe `{config.recipe}`." + (f" {sentence}" if sentence else ""),
        *usage_section(card),
    ]
    if card.library == "jaxplm":
        parts.append("transformers has no class for this model.")
    if found:
        masks = " Masked-token scores use masks that the seed fixes." if any(score.name == "perplexity" for score in found) else ""
        parts += ["## Scores", scores_markdown(found), f"Measured before the first step and with these weights.{masks}"]
    for section in facts.sections:
        if section.in_card:
            parts += section_markdown(section, with_figures=False)
    parts += [
        "## Limits",
        "The model repeats the biases and errors of its training texts and has no other knowledge. Check its answers on texts of your"
        f" own before you rely on them. {licence_sentence(config)}",
        *command_section(facts.command),
    ]
    return "\n\n".join(parts) + "\n"


def card_header(config: Config, card: Card, found: Sequence[Score] = ()) -> str:
    """Return the YAML header of a card, between lines of three dashes.

    Args:
      config: of the run.
      card: how the model is used.
      found: the scores of the exported model, for the hub's `model-index`.
    """
    from huggingface_hub import ModelCardData  # imported here: the client takes a while, and a run needs it at its end

    export = config.export
    data = ModelCardData(
        language=list(export.language) or None,
        license=export.license or None,
        library_name=card.library,
        pipeline_tag=card.pipeline_tag or None,
        base_model=_hub_id(config.model.path),
        datasets=_hub_data_sets(config.data.train + (f",{config.data.general}" if config.data.replay else "")) or None,
        tags=["jaxplm", config.recipe.replace("_", "-"), *card.tags],
        model_name=export.name or _default_name(config),
        eval_results=_eval_results(config, card, found) or None,
    )
    if not data.eval_results:
        data.pop("model_name")  # the hub knows it as a part of `model-index`
    return f"---\n{data.to_yaml()}\n---"


def usage_section(card: Card) -> list[str]:
    """Return the section "Use": code that loads and calls the model."""
    return ["## Use", code_block(card.usage, "python")]


def command_section(command: str) -> list[str]:
    """Return the section "Command": what made the model."""
    return ["## Command", code_block(command)]


def licence_sentence(config: Config) -> str:
    """Return what the card says about the licence."""
    if config.export.license:
        return f"Licence: {one_line(config.export.license)}."
    return "No licence is recorded: the terms of the base model and of the training texts apply."


def _default_name(config: Config) -> str:
    base = config.model.path.rstrip("/").rpartition("/")[2].rpartition(":")[2] or f"new-{config.model.size}"
    return f"{base}-{config.recipe.replace('_', '-')}"


def _hub_id(path: str) -> str | None:
    """Return `path` if it names a model on the hub; the header must not hold anything else as a base model."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(path)
    except HFValidationError:
        return None
    return None if Path(path).exists() else path


def _hub_data_sets(sources: str) -> list[str]:
    """Return the ids of the data sets on the hub among sources separated by commas; 'hf:name:config' gives 'name'."""
    names = (source.strip().removeprefix(_HUB).partition(":")[0] for source in sources.split(",") if source.strip().startswith(_HUB))
    return list(dict.fromkeys(names))


def _eval_results(config: Config, card: Card, found: Sequence[Score]) -> "list[EvalResult]":
    """Return the exported model's scores in the hub's terms. Files are named without their directories."""
    from huggingface_hub import EvalResult

    data = config.data
    sources = {"validation": data.validation or data.train, "test": data.test or data.train, "general": data.general}
    results = []
    for score in found:
        source = sources[score.split]
        ids = _hub_data_sets(source)
        name = ids[0] if ids else ", ".join(Path(part.strip()).name for part in source.split(","))
        results.append(EvalResult(
            task_type=card.pipeline_tag or "other", dataset_type=ids[0] if ids else "other", dataset_name=name,
            dataset_split=score.split, metric_type=score.name,
            metric_name=title(score.name), metric_value=round(score.after, 6)))
    return results

"""Measure how a tokenizer cuts the run's corpus, and show it in the log, in a plot and in report.md.

Every vocabulary recipe starts with this.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxplm.config import Config
from jaxplm.data.sources.texts import open_corpus
from jaxplm.hf.tokenizer import unreachable_share
from jaxplm.reporting.console import log_lines
from jaxplm.vocab.advice import advise, advise_new
from jaxplm.vocab.measure import Measurement, measure
from jaxplm.vocab.plot import write_vocabulary
from jaxplm.vocab.reach import fixed_because
from jaxplm.vocab.report import vocabulary_markdown, vocabulary_text
from jaxplm.vocab.splits import damaging_splits

KEPT = "vocabulary"  # directory in the workdir: what was measured and chosen, for report.md of a resumed run
_LOGGED = 8  # splits of each kind


@dataclass(frozen=True)
class CorpusReport:
    """A measured corpus; `section` is "Vocabulary" of report.md in Markdown, with plots/vocabulary.png."""

    domain: Measurement
    section: str


def report_corpus(config: Config, workdir: Path, tokenizer: Any, *, new: bool = False) -> CorpusReport:
    """Measure the run's corpus, log the tables and draw the plot.

    The corpus is `data.train`. If `data.general` is given, its validation split is measured for comparison.

    Args:
      config: of the run.
      workdir: where plots/vocabulary.png is written.
      tokenizer: a fast transformers tokenizer.
      new: the tokenizer was trained on this corpus, so the advice is about its size.

    Raises:
      UserError: the texts cannot be read, or have no word.
    """
    data = config.data
    domain = measure(open_corpus(data, data.train, max_rows=data.max_rows), tokenizer)
    general = measure(open_corpus(data, data.general, split="validation"), tokenizer) if data.general else None
    size = len(tokenizer)
    if new:
        advice = advise_new(domain, size)
    else:
        advice = advise(domain, size, general, unreachable_share(tokenizer), fixed_because(tokenizer))
    log_lines(vocabulary_text(domain, tokenizer, advice, general, most=_LOGGED))
    write_vocabulary(workdir / "plots" / "vocabulary.png", domain, damaging_splits(domain, general), tokenizer, general)
    section = vocabulary_markdown(domain, tokenizer, advice, general) + "\n\n![Vocabulary](plots/vocabulary.png)"
    return CorpusReport(domain, section)

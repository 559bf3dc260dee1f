"""How similar corpus, task and general text are in their words, and how the model's tokenizer splits them."""

import dataclasses
import hashlib
import json
import logging
from pathlib import Path

from jaxplm import hf
from jaxplm.config import Config
from jaxplm.data import atomic
from jaxplm.data.checksums import Damaged, opened, read_json, sealed
from jaxplm.data.sources.texts import open_texts
from jaxplm.recipes.adapt.contents import FILE
from jaxplm.recipes.adapt.plan import TASK_TEXTS
from jaxplm.reporting.comparison.comparison import Vocabularies
from jaxplm.vocab.measure import measure
from jaxplm.vocab.overlap import OVERLAP_WORDS, overlap

log = logging.getLogger("jaxplm")

KEPT = "task/vocabularies.json"
_MOST_TEXTS = 200_000  # of one set: frequent words and fertility are known by then


def vocabularies(config: Config, workdir: Path) -> Vocabularies:
    """Measure the texts of a comparison, or read what was measured of the same texts before.

    Raises:
      UserError: the texts or the tokenizer cannot be read.
    """
    data = config.data
    sets = {"corpus": (data.corpus, "train"), "task": (str(workdir / TASK_TEXTS), "train"), "general": (data.general, "validation"),
            "off-domain": (config.adapt.off_domain, "train")}
    sets = {name: found for name, found in sets.items() if found[0]}
    kept = workdir / KEPT
    key = hashlib.sha256(json.dumps([sets, read_json(workdir / FILE)["contents"], config.model.path]).encode()).hexdigest()
    try:
        content = opened(read_json(kept), str(kept))
        if content.pop("key") == key:
            return Vocabularies(tuple(content["names"]), tuple(map(tuple, content["overlap"])), content["top_words"],
                                tuple(content["fertility"]), tuple(content["unknown"]))
    except (OSError, Damaged, KeyError, TypeError):
        pass  # it is measured now
    tokenizer, _ = hf.load_tokenizer(hf.resolve(config.model.path), config.model.path)
    measured = []
    for name, (spec, split) in sets.items():
        log.info("words of the %s: %s", name, spec)
        text = "text" if name == "task" else data.text
        measured.append(measure(open_texts(spec, lines=data.lines, text=text, split=split, max_rows=_MOST_TEXTS), tokenizer))
    table = tuple(tuple(1.0 if one is other else overlap(one, other) for other in measured) for one in measured)
    found = Vocabularies(tuple(sets), table, OVERLAP_WORDS, tuple(one.fertility for one in measured),
                         tuple(one.unknown_share for one in measured))
    atomic.write_text(kept, json.dumps(sealed(dataclasses.asdict(found) | {"key": key}), indent=1) + "\n")
    return found

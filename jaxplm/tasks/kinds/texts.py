"""Tasks over whole texts or pairs of texts: the rows, what the encoder reads of them, and where labels belong."""

from abc import abstractmethod
from typing import Any

from jaxplm.data.labelled.encode import encode_texts
from jaxplm.data.labelled.encodings import Encoded
from jaxplm.data.labelled.examples import Example, Examples
from jaxplm.data.labelled.label_values import read_text
from jaxplm.data.labelled.reading import Columns, DataFields
from jaxplm.data.sources.columns import Row
from jaxplm.tasks.kinds.kind import TaskKind

# For the model card of every head that `AutoModelForSequenceClassification` loads; `{options}` are the pipeline's.
PIPELINE = """from transformers import pipeline

classify = pipeline("text-classification", "path/to/this/directory"{options})
classify("a text")
classify({{"text": "a text", "text_pair": "its pair"}})  # a model of pairs"""


class TextKind(TaskKind):
    """A task with one label for each text or pair; the head pools each into one vector.

    Rows have `data.text`, optionally `data.text_pair`, and `data.label`. A text that is too long is cut.
    """

    options = frozenset(("pooling",))

    def columns(self, data: DataFields) -> Columns:
        needed = {data.text: "data.text"}
        if data.text_pair:
            needed[data.text_pair] = "data.text_pair"
        return Columns(needed, {data.label: "data.label"}, (data.label,))

    def read(self, row: Row, data: DataFields, where: str, number: int) -> Example:
        text = read_text(row.get(data.text), where)
        pair = read_text(row.get(data.text_pair), where) if data.text_pair else None
        label = self.read_label(row.get(data.label), where)
        fault = "missing" if label is None else ""
        # A pair with one empty side differs from other pairs, so it is trained on; with two empty sides it does not.
        if not text.strip() and not (pair and pair.strip()):
            fault = "empty"
        return Example(text, pair, label=label, fault=fault)

    @abstractmethod
    def read_label(self, value: Any, where: str) -> Any:
        """Return the label in a cell, None if there is none.

        Raises:
          UserError: a value of the wrong type; `where` is the row's place for the message.
        """

    def encode(self, examples: Examples, tokenizer: Any, seq_len: int, overlap: int) -> Encoded:
        return encode_texts(examples, tokenizer, seq_len)

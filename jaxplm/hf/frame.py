"""The special tokens around a text and a pair: checked, and added where a tokenizer leaves them out."""

from typing import Any

from tokenizers import processors

from jaxplm.hf.families import FAMILIES


def add_missing_frame(tokenizer: Any) -> bool:
    """Give a tokenizer the frame of its family where it does not put cls and sep around a text, and sep inside a pair.

    BERT and RoBERTa are trained on framed texts, and rows for masked language modelling always have the frame. A
    tokenizer.json that was made with the library `tokenizers` often has no post-processor: tasks and vectors would then
    read texts without the frame.

    Args:
      tokenizer: transformers' fast tokenizer with cls and sep; changed in place.

    Returns:
      Whether it was changed.
    """
    backend = tokenizer.backend_tokenizer
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    single, double = _frame(backend, pair=False), _frame(backend, pair=True)
    if single == [cls, sep] and double in ([cls, sep, sep], [cls, sep, sep, sep]):
        return False
    first, last = tokenizer.cls_token, tokenizer.sep_token
    doubled = any(family.doubled_separator and family.special_tokens["cls"] == first for family in FAMILIES.values())
    pair = f"{first} $A {last} {last} $B {last}" if doubled else f"{first} $A {last} $B:1 {last}:1"
    tokens = [(first, cls), (last, sep)]
    frame = processors.TemplateProcessing(single=f"{first} $A {last}", pair=pair, special_tokens=tokens)
    if not doubled and "token_type_ids" not in tokenizer.model_input_names:
        tokenizer.model_input_names = [*tokenizer.model_input_names, "token_type_ids"]
    given = backend.post_processor
    adds_none = not single and not double
    # One that adds no token does something else, such as trimming the spaces off the places of tokens.
    backend.post_processor = processors.Sequence([given, frame]) if given is not None and adds_none else frame
    return True


def _frame(backend: Any, *, pair: bool) -> list[int]:
    """Return the ids that the tokenizer adds to a text or a pair, in their order."""
    backend.no_truncation()
    encoding = backend.encode("a", "a") if pair else backend.encode("a")
    return [index for index, added in zip(encoding.ids, encoding.special_tokens_mask, strict=True) if added]

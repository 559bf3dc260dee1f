"""What versions 4.48 to 4.57 of transformers ask of a tokenizer's files; newer ones are installed where the tests run."""

import json
from pathlib import Path

# Classes of version 5 that have other names in version 4.
_NEW_CLASSES = ("TokenizersBackend", "PythonBackend", "SentencePieceBackend")


def assert_version_4_reads(directory: Path) -> None:
    """Assert that tokenizer_config.json has the form that version 4 can read."""
    settings = json.loads((directory / "tokenizer_config.json").read_text("utf-8"))
    assert isinstance(settings.get("extra_special_tokens", {}), dict)  # version 5 writes a list, version 4 calls .keys()
    assert settings["tokenizer_class"] not in _NEW_CLASSES
    assert isinstance(settings.get("additional_special_tokens", []), list)
    for token in settings.get("additional_special_tokens", []):
        assert isinstance(token, str) or token["__type"] == "AddedToken"
    # Version 4 gives token types by default, version 5 does not: a model with one row of types fails at the second text of a pair.
    described = json.loads((directory / "config.json").read_text("utf-8"))
    assert ("token_type_ids" in settings["model_input_names"]) <= (described["type_vocab_size"] > 1)
    assert {"input_ids", "attention_mask"} <= set(settings["model_input_names"])

"""Exports have a form that versions 4.48 and newer of transformers read as the same tokenizer and the same inputs."""

import checkpoints
import pytest
import transformers
from version_4 import assert_version_4_reads

from jaxplm import hf
from jaxplm.nn import HeadConfig
from jaxplm.tasks.kinds import KINDS

ADDED = ["[DRUG]", "<ent>"]


@pytest.mark.slow
@pytest.mark.parametrize("family", checkpoints.FAMILIES)
@pytest.mark.parametrize("kind", ["", "classify", "tag", "qa"])
def test_exports(tmp_path, family, kind):
    source = checkpoints.save(tmp_path / "source", family)
    tokenizer = checkpoints.tokenizer(family)
    tokenizer.add_special_tokens({"additional_special_tokens": ADDED})
    tokenizer.save_pretrained(source)
    if kind:
        head = KINDS[kind].head_config(2)
        assert isinstance(head, HeadConfig)
        loaded = hf.load_task_model(str(source), KINDS, head)
        hf.save_task_model(tmp_path / "export", loaded, loaded.params, ["a", "b"] if kind != "qa" else [])
    else:
        loaded = hf.load(str(source))
        hf.save(tmp_path / "export", loaded.config, loaded.params, loaded.tokenizer, loaded.hf_config)
    assert_version_4_reads(tmp_path / "export")
    with checkpoints.listening() as heard:
        stock = transformers.AutoTokenizer.from_pretrained(tmp_path / "export")
    assert heard == []
    assert sorted(stock.all_special_tokens) == sorted(tokenizer.all_special_tokens)
    assert stock("a [DRUG] b", "c").input_ids == tokenizer("a [DRUG] b", "c").input_ids
    types = stock("the dog", "a text").get("token_type_ids")
    assert types is None if loaded.config.token_types == 1 else max(types) == 1
    again = hf.load_model(str(tmp_path / "export"), KINDS)  # the export of an export is the same
    hf.save(tmp_path / "second", again.config, again.params, again.tokenizer, again.hf_config) if not kind else None
    if not kind:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            assert (tmp_path / "second" / name).read_bytes() == (tmp_path / "export" / name).read_bytes()


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_tokenizers_of_no_class_of_their_own_name_their_inputs(tmp_path, family):
    """Version 4 gives token types for them and version 5 does not."""
    source = checkpoints.save(tmp_path / "source", family)
    proper = checkpoints.tokenizer(family)
    bare = transformers.PreTrainedTokenizerFast(tokenizer_object=proper.backend_tokenizer, **proper.special_tokens_map)
    bare.save_pretrained(source)
    loaded = hf.load(str(source))
    hf.save(tmp_path / "export", loaded.config, loaded.params, loaded.tokenizer, loaded.hf_config)
    assert_version_4_reads(tmp_path / "export")

"""Models in transformers' format: load, save and load again, in all forms of the files."""

import json
import warnings

import checkpoints
import numpy as np
import pytest
import transformers
from checkpoints import assert_bitwise, flat, reconfigure, refused, resave, rewrite, torch
from messages import assert_says
from safetensors.numpy import load_file, save_file

from jaxplm import hf, nn
from jaxplm.hf.names import tensor_specs


@pytest.fixture
def bert(tmp_path):
    return checkpoints.save(tmp_path / "bert", "bert")


@pytest.fixture(scope="module", params=checkpoints.FAMILIES)
def family(request, tmp_path_factory):
    """(name, its checkpoint)."""
    directory = tmp_path_factory.mktemp("families") / request.param
    return request.param, checkpoints.save(directory, request.param)


@pytest.mark.slow
@pytest.mark.parametrize("name", checkpoints.FAMILIES)
def test_the_checkpoints_of_these_tests_are_those_that_stock_transformers_writes(name, tmp_path):
    """Tests that do without PyTorch read files with the same names, shapes and settings."""
    ours = checkpoints.save(tmp_path / "ours", name)
    theirs = checkpoints.save(tmp_path / "theirs", name, checkpoints.model(name))
    assert {file.name for file in ours.iterdir()} == {file.name for file in theirs.iterdir()}
    assert json.loads((ours / "config.json").read_text()) == json.loads((theirs / "config.json").read_text())
    found, expected = (load_file(directory / "model.safetensors") for directory in (ours, theirs))
    assert {key: (tensor.shape, tensor.dtype) for key, tensor in found.items()} == {
        key: (tensor.shape, tensor.dtype) for key, tensor in expected.items()}


def test_table_covers_every_number_once():
    config = nn.EncoderConfig("bert", vocab_size=131, width=12, layers=2, heads=3, ffn_width=10,
                              max_positions=9, pooler=True)
    shapes = nn.abstract_model(config)[1]
    count = {path: np.zeros(leaf.shape, int) for path, leaf in flat(shapes).items()}
    for spec in tensor_specs(config, shapes):
        count["/" + spec.path][spec.index] += 1
    for path, times in count.items():
        rows = slice(131 if path.endswith(("/word", "mlm_head/bias")) else None)
        assert (times[rows] == 1).all(), path
        assert times.sum() == times[rows].size, path


@pytest.mark.slow
def test_round_trip_is_bitwise_and_transformers_loads_it_without_a_warning(family, tmp_path, capfd):
    name, source = family
    first = hf.load(str(source))
    export = resave(first, tmp_path / "export")
    assert first.notes == []
    second = hf.load(str(export))
    assert (second.config, second.notes) == (first.config, [])
    assert_bitwise(second.params, first.params)
    stored, original = load_file(export / "model.safetensors"), load_file(source / "model.safetensors")
    assert_bitwise(stored, original)  # so no second decoder either

    capfd.readouterr()
    with checkpoints.listening() as heard, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        model, report = transformers.AutoModelForMaskedLM.from_pretrained(export, output_loading_info=True)
        tokenizer = transformers.AutoTokenizer.from_pretrained(export)
    assert heard == []
    assert warned == []
    assert not any(report.values()), report
    assert type(model).__name__ == type(checkpoints.model(name)).__name__
    assert type(tokenizer) is type(first.tokenizer)
    assert tokenizer.backend_tokenizer.to_str() == first.tokenizer.backend_tokenizer.to_str()
    fill = transformers.pipeline("fill-mask", model=model, tokenizer=tokenizer)
    assert len(fill(f"the {tokenizer.mask_token} dog")) == 5


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sixteen_bits_round_trip(dtype, tmp_path):
    made = checkpoints.model("roberta").to(getattr(torch, dtype))
    source = checkpoints.save(tmp_path / "source", "roberta", made)
    loaded = hf.load(str(source))
    assert {leaf.dtype for leaf in flat(loaded.params).values()} == {np.dtype(np.float32)}
    export = resave(loaded, tmp_path / "export", dtype=dtype)
    assert_bitwise(load_file(export / "model.safetensors"), load_file(source / "model.safetensors"))
    assert json.loads((export / "config.json").read_text())["dtype"] == dtype


@pytest.mark.slow
def test_shards(bert, tmp_path):
    whole = hf.load(str(bert))
    model = transformers.BertForMaskedLM.from_pretrained(bert)
    sharded = checkpoints.save(tmp_path / "sharded", "bert", model, max_shard_size="20KB")
    parts = sorted(sharded.glob("model-*.safetensors"))
    assert len(parts) > 2
    assert_bitwise(hf.load(str(sharded)).params, whole.params)

    parts[1].rename(tmp_path / "elsewhere")
    assert_says(refused(sharded), parts[1].name)
    save_file({"other": np.zeros(1, np.float32)}, parts[1])
    assert_says(refused(sharded), "model.safetensors.index.json")
    index = sharded / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../elsewhere"}}))
    assert_says(refused(sharded), "../elsewhere")
    index.write_text("[]")
    assert_says(refused(sharded), "model.safetensors.index.json", "index")


def test_vocabulary_padding_is_zero(bert):
    loaded = hf.load(str(bert))
    assert loaded.params["encoder"]["embeddings"]["word"].shape[0] == loaded.config.padded_vocab == 512
    assert not loaded.params["encoder"]["embeddings"]["word"][403:].any()
    assert not loaded.params["mlm_head"]["bias"][403:].any()


@pytest.mark.slow
def test_pooler_is_kept_beside_the_masked_lm(tmp_path):
    made = checkpoints.model("bert", head="ForPreTraining")
    loaded = hf.load(str(checkpoints.save(tmp_path / "source", "bert", made)))
    assert loaded.config.pooler
    assert [note for note in loaded.notes if "cls.seq_relationship" in note] == loaded.notes
    theirs = made.bert.pooler.dense.weight.detach().numpy()
    np.testing.assert_array_equal(loaded.params["pooler"]["kernel"], theirs.T)

    export = resave(loaded, tmp_path / "export")
    with checkpoints.listening() as heard:
        _, report = transformers.AutoModelForMaskedLM.from_pretrained(export, output_loading_info=True)
    assert heard == []
    assert not any(report.values())
    again = hf.load(str(export))
    assert again.config == loaded.config
    assert_bitwise(again.params, loaded.params)


@pytest.mark.slow
def test_no_token_types(bert, tmp_path):
    """A checkpoint without the table: ours has none; the export computes the same in stock transformers."""
    name = "bert.embeddings.token_type_embeddings.weight"
    rewrite(bert, lambda tensors: tensors.pop(name) is None)
    loaded = hf.load(str(bert))
    assert loaded.config.token_types == 0
    assert "token_type" not in loaded.params["encoder"]["embeddings"]
    assert ["no token-type table" in note for note in loaded.notes] == [True]
    export = resave(loaded, tmp_path / "export")
    model, report = transformers.AutoModelForMaskedLM.from_pretrained(export, output_loading_info=True)
    assert not any(report.values())
    ids = np.arange(5, 21, dtype=np.int32)[None]
    with torch.no_grad():
        expected = model(torch.tensor(ids).long()).logits.numpy()
    module = nn.merge_params(nn.abstract_model(loaded.config)[0], loaded.params)
    np.testing.assert_allclose(np.asarray(module.mlm_logits(ids)), expected, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_encoder_without_prefix_or_head(tmp_path):
    made = checkpoints.model("bert", head="Model")
    source = checkpoints.save(tmp_path / "encoder", "bert", made)
    assert "embeddings.word_embeddings.weight" in load_file(source / "model.safetensors")
    loaded = hf.load(str(source), seed=3)
    assert loaded.config.pooler
    assert len(loaded.notes) == 1
    assert "no MLM head" in loaded.notes[0]
    head = loaded.params["mlm_head"]
    assert 0.7 < head["dense"]["kernel"].std() / loaded.config.init_std < 1.3
    assert (head["norm"]["scale"] == 1).all()
    assert not any(leaf.any() for leaf in (head["dense"]["bias"], head["norm"]["bias"], head["bias"]))
    assert_bitwise(hf.load(str(source), seed=3).params, loaded.params)
    other = hf.load(str(source), seed=4).params["mlm_head"]
    assert not np.array_equal(other["dense"]["kernel"], head["dense"]["kernel"])


def test_old_names_buffers_and_other_heads(bert):
    expected = hf.load(str(bert))

    def age(tensors):
        old = {}
        for name, tensor in tensors.items():
            name = name.replace("LayerNorm.weight", "LayerNorm.gamma")
            old[name.replace("LayerNorm.bias", "LayerNorm.beta")] = tensor
        old["bert.embeddings.position_ids"] = np.arange(30)[None]
        old["cls.predictions.decoder.weight"] = old["bert.embeddings.word_embeddings.weight"]
        old["cls.predictions.decoder.bias"] = old.pop("cls.predictions.bias")
        old["classifier.weight"] = np.zeros((2, 24), np.float32)
        old["classifier.bias"] = np.zeros(2, np.float32)
        return old

    loaded = hf.load(str(rewrite(bert, age)))
    assert_bitwise(loaded.params, expected.params)
    assert len(loaded.notes) == 1
    assert loaded.notes[0].endswith("head of another task: classifier")


def test_decoder_that_differs_from_the_table(bert):
    def untie(tensors):
        tensors["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"] + 1

    expected = hf.load(str(bert))
    loaded = hf.load(str(rewrite(bert, untie)))
    assert_bitwise(loaded.params, expected.params)
    assert ["differs" in note for note in loaded.notes] == [True]
    assert_says(refused(reconfigure(bert, tie_word_embeddings=False)), "decoder", "tied")

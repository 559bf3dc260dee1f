"""Fine-tuned models in transformers' format: load, save and load again; new heads on the encoder of any checkpoint."""

import dataclasses
import functools
import json
import warnings

import checkpoints
import jax
import numpy as np
import pytest
import transformers
from checkpoints import assert_bitwise, flat, reconfigure, rewrite, torch
from messages import assert_says, refuses
from safetensors.numpy import load_file, save_file

import jaxplm
from jaxplm import hf, nn
from jaxplm.errors import UserError
from jaxplm.tasks.kinds import KINDS

AUTO = {"classify": "SequenceClassification", "multilabel": "SequenceClassification", "regress": "SequenceClassification",
        "tag": "TokenClassification", "qa": "QuestionAnswering"}
OPTIONS = {
    "classify": {"id2label": {0: "긍정", 1: "negative", 2: "neutral"}, "label2id": {"긍정": 0, "negative": 1, "neutral": 2}},
    "multilabel": {"num_labels": 4, "problem_type": "multi_label_classification"},
    "regress": {"num_labels": 1, "problem_type": "regression", "classifier_dropout": 0.25},
    "tag": {"id2label": {0: "O", 1: "B-X", 2: "I-X"}, "label2id": {"O": 0, "B-X": 1, "I-X": 2}},
    "qa": {},
}
CASES = [(family, kind) for family in ("bert", "roberta") for kind in OPTIONS] + [
    ("klue", "classify"), ("xlm-roberta", "tag"), ("camembert", "classify")]
IDS = np.arange(5, 25, dtype=np.int32).reshape(2, 10)
OWN_HEADS = [KINDS["classify"].head_config(3, pooling="mean", dropout=0.2), KINDS["regress"].head_config(1, layers="mix"),
             KINDS["tag"].head_config(3, body="lstm", body_width=9),
             KINDS["tag"].head_config(3, layers="mix", body="transformer", body_width=9),
             KINDS["qa"].head_config(2, layers="last4")]


def names_of(head: nn.HeadConfig) -> tuple[str, ...]:
    return () if head.kind == "qa" else ("score",) if head.kind == "regress" else ("O", "B-X", "I-X")


def resave(loaded: hf.LoadedTask, directory, labels=None, **options):
    return hf.save_task_model(directory, loaded, loaded.params, loaded.labels if labels is None else labels, **options)


def fine_tuned(directory, family="bert", kind="classify", **options):
    made = checkpoints.model(family, head=f"For{AUTO[kind]}", **(OPTIONS[kind] | options))
    return checkpoints.save(directory, family, made)


def classifier(directory, **options):
    """A BERT that was fine-tuned to classify, made without PyTorch."""
    checkpoints.save_classifier(directory, checkpoints.hf_config("bert", **(OPTIONS["classify"] | options)))
    checkpoints.tokenizer("bert").save_pretrained(directory)
    return directory


def silently(kind, directory):
    """Return what transformers loads from a directory, and assert that it does so without a warning."""
    with checkpoints.listening() as heard, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        model, report = getattr(transformers, f"AutoModel{kind}").from_pretrained(directory, output_loading_info=True)
        transformers.AutoTokenizer.from_pretrained(directory)
    assert heard == []
    assert warned == []
    assert not any(report.values()), report
    return model.eval()


def their_logits(kind, model):
    with torch.no_grad():
        output = model(torch.tensor(IDS).long())
    return (torch.stack([output.start_logits, output.end_logits], -1) if kind == "qa" else output.logits).numpy()


@functools.cache
def encoder_of(config: nn.EncoderConfig):
    """Hidden states of IDS from the encoder's parameters, by the module of the masked LM. Compiled once per config."""
    graph, outline = nn.abstract_model(config)
    rest = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), {name: outline[name] for name in outline if name != "encoder"})
    return jax.jit(lambda encoder: nn.merge_params(graph, {"encoder": encoder} | rest).hidden_states(IDS))


@pytest.mark.slow
@pytest.mark.parametrize(("family", "kind"), CASES)
def test_round_trip_is_bitwise_and_transformers_loads_it_without_a_warning(family, kind, tmp_path):
    source = fine_tuned(tmp_path / "source", family, kind)
    first = hf.load_task_model(str(source), KINDS)
    assert first.notes == []
    assert first.head.kind == kind and first.head.hf_native and not first.config.pooler
    export = resave(first, tmp_path / "export", files={"README.md": "card\n"})
    second = hf.load_task_model(str(export), KINDS)
    assert dataclasses.replace(second, params={}, hf_config={}, tokenizer=None) == dataclasses.replace(
        first, params={}, hf_config={}, tokenizer=None)
    assert_bitwise(second.params, first.params)
    assert_bitwise(load_file(export / "model.safetensors"), load_file(source / "model.safetensors"))
    assert (export / "README.md").read_text() == "card\n" and not (export / "jaxplm.json").exists()

    stock = silently(f"For{AUTO[kind]}", export)
    assert type(stock).__name__ == json.loads((source / "config.json").read_text())["architectures"][0]
    theirs, ours = stock.config, transformers.AutoConfig.from_pretrained(source)
    assert (theirs.id2label, theirs.label2id, theirs.classifier_dropout) == (ours.id2label, ours.label2id, ours.classifier_dropout)
    problems = {"classify": "single_label_classification", "multilabel": "multi_label_classification", "regress": "regression"}
    assert theirs.problem_type == problems.get(kind)
    if kind in ("classify", "tag"):
        assert second.labels == tuple(OPTIONS.get(kind, {})["label2id"])
        assert theirs.id2label == dict(enumerate(second.labels))
    model, tokenizer = jaxplm.load(str(export))
    assert isinstance(model, nn.TaskModel)
    assert model.labels == second.labels and (kind != "qa" or model.labels == ())
    if kind == "classify" or (family == "bert" and kind in ("tag", "qa")):  # the file is that of the source: one of each will do
        np.testing.assert_allclose(model.logits(IDS), their_logits(kind, stock), rtol=0, atol=1e-4)
    if kind == "classify":
        texts = ["the dog", "a fox"]
        found = model.logits(**tokenizer(texts, padding=True, return_tensors="np"))
        predicted = transformers.pipeline("text-classification", model=stock, tokenizer=tokenizer)(texts)
        assert [model.labels[i] for i in found.argmax(-1)] == [entry["label"] for entry in predicted]


@pytest.mark.slow
@pytest.mark.parametrize("head", OWN_HEADS, ids=lambda head: f"{head.kind}-{head.pooling}-{head.layers}-{head.body}")
def test_heads_that_transformers_lacks(head, tmp_path):
    family = "roberta" if head.layers == "mix" else "bert"
    loaded = hf.load_task_model(str(checkpoints.save(tmp_path / "source", family)), KINDS, head, seed=3)
    export = resave(loaded, tmp_path / "export", names_of(head))
    again = hf.load_task_model(str(export), KINDS)
    assert (again.config, again.head, again.labels, again.notes) == (loaded.config, head, names_of(head), [])
    assert_bitwise(again.params, loaded.params)
    assert sorted(again.params["head"]) == sorted(loaded.params["head"])
    model, _ = jaxplm.load(str(export))
    assert isinstance(model, nn.TaskModel) and model.labels == names_of(head) and model.head_config == head
    expected = nn.merge_params(nn.abstract_task_model(loaded.config, head, names_of(head))[0], loaded.params).logits(IDS)
    np.testing.assert_array_equal(model.logits(IDS), expected)

    stock = silently("", export)
    assert json.loads((export / "config.json").read_text())["architectures"] == [type(stock).__name__]
    assert not {"id2label", "problem_type"} & json.loads((export / "config.json").read_text()).keys()
    with torch.no_grad():
        output = stock(torch.tensor(IDS).long())
    hidden = np.asarray(encoder_of(loaded.config)(loaded.params["encoder"]))
    np.testing.assert_allclose(output.last_hidden_state.numpy(), hidden, rtol=0, atol=1e-4)
    np.testing.assert_allclose(output.pooler_output.numpy(), np.tanh(hidden[:, 0]), rtol=0, atol=1e-4)

    # The encoder can be trained further; the unused pooler is not exported.
    masked = hf.load(str(export))
    assert not masked.config.pooler and len(masked.notes) == 1 and "no MLM head" in masked.notes[0]
    other = hf.load_task_model(str(export), KINDS, KINDS["classify"].head_config(2))
    assert_notes(other, NEW)
    for params in (masked.params, other.params):
        assert_bitwise(params["encoder"], loaded.params["encoder"])


def assert_notes(loaded, *expected: tuple[str, ...]) -> None:
    """Assert that loading left exactly these notes, each with what it must name."""
    assert len(loaded.notes) == len(expected), loaded.notes
    for note, parts in zip(loaded.notes, expected, strict=True):
        assert_says(note, *parts)


NEW = ("head is new", "random")
BEGUN = ("head is new", "pooler", "random")
LEFT = ("pooler",)


@pytest.mark.slow
def test_new_head_on_every_kind_of_checkpoint(tmp_path):
    """The encoder is the same from every kind of checkpoint, and a pooler is used where it fits."""
    classify, tag = KINDS["classify"].head_config(4), KINDS["tag"].head_config(4)
    made = checkpoints.model("bert", head="ForPreTraining")
    pretrained = checkpoints.save(tmp_path / "pretrained", "bert", made)
    masked = checkpoints.resave(hf.load(str(pretrained)), tmp_path / "masked")  # the pooler in a file of its own
    assert (masked / "pooler.safetensors").exists()
    base = checkpoints.save(tmp_path / "base", "bert", made.bert)
    encoder = hf.load(str(pretrained)).params["encoder"]
    pooler = hf.load(str(pretrained)).params["pooler"]
    for source, extra in ((pretrained, [("cls.seq_relationship",)]), (masked, []), (base, [])):
        loaded = hf.load_task_model(str(source), KINDS, classify, seed=5)
        assert_notes(loaded, *extra, ("classify", *BEGUN))
        assert_bitwise(loaded.params["encoder"], encoder)
        assert_bitwise(loaded.params["head"]["dense"], pooler)
        fresh = jax.tree.map(np.asarray, nn.random_head_params(loaded.config, classify, 5))
        assert_bitwise(loaded.params["head"]["out"], fresh["out"])
        assert loaded.labels == () and loaded.head == classify
        for head in (tag, dataclasses.replace(classify, pooling="mean")):
            other = hf.load_task_model(str(source), KINDS, head)
            assert_notes(other, *extra, (head.kind, *NEW), LEFT)
            assert "pooler" not in other.notes[-2]
            assert_bitwise(other.params["encoder"], encoder)
    mixed = hf.load_task_model(str(base), KINDS, dataclasses.replace(classify, layers="mix"))
    assert_bitwise(mixed.params["head"]["dense"], pooler)


@pytest.mark.slow
def test_new_head_in_place_of_another(tmp_path):
    bert = fine_tuned(tmp_path / "bert")
    tuned = hf.load_task_model(str(bert), KINDS)
    loaded = hf.load_task_model(str(bert), KINDS, KINDS["classify"].head_config(7))
    assert_notes(loaded, ("classifier",), ("classify", *BEGUN))
    assert_bitwise(loaded.params["head"]["dense"], tuned.params["head"]["dense"])
    assert loaded.params["head"]["out"]["kernel"].shape == (24, 7)
    roberta = fine_tuned(tmp_path / "roberta", "roberta")
    loaded = hf.load_task_model(str(roberta), KINDS, KINDS["classify"].head_config(3))
    assert_notes(loaded, ("classifier.dense", "classifier.out_proj"), ("classify", *NEW))
    assert "pooler" not in loaded.notes[1]
    assert (loaded.params["head"]["dense"]["kernel"] != hf.load_task_model(str(roberta), KINDS).params["head"]["dense"]["kernel"]).any()
    # Further pre-training of a fine-tuned model: its pooler goes along, its classifier does not.
    masked = hf.load(str(bert))
    assert masked.config.pooler and "classifier" in masked.notes[0]
    assert_bitwise(masked.params["pooler"], tuned.params["head"]["dense"])
    assert isinstance(jaxplm.load(str(checkpoints.save(tmp_path / "mlm", "bert")))[0], nn.MaskedLM)


def test_rate_of_the_heads_dropout(tmp_path):
    source = classifier(tmp_path / "source", classifier_dropout=0.3)
    assert hf.load_task_model(str(source), KINDS).head.dropout == 0.3
    new = KINDS["classify"].head_config(2)
    assert hf.load_task_model(str(source), KINDS, new).head.dropout == 0.3
    assert hf.load_task_model(str(source), KINDS, dataclasses.replace(new, dropout=0.0)).head.dropout == 0.0
    assert hf.load_task_model(str(reconfigure(source, classifier_dropout=None)), KINDS, new).head.dropout is None
    loaded = dataclasses.replace(hf.load_task_model(str(source), KINDS), head=KINDS["classify"].head_config(3, dropout=0.5))
    assert json.loads((resave(loaded, tmp_path / "export") / "config.json").read_text())["classifier_dropout"] == 0.5


@pytest.mark.slow
def test_old_checkpoints(tmp_path):
    """Checkpoints with poolers that nothing uses, a copy of the tied decoder, no problem_type and no names of labels."""
    source = fine_tuned(tmp_path / "tag", "bert", "tag")

    def age(tensors):
        tensors["bert.pooler.dense.weight"] = np.ones((24, 24), np.float32)
        tensors["bert.pooler.dense.bias"] = np.ones(24, np.float32)
        tensors["bert.embeddings.position_ids"] = np.arange(30)[None]

    expected = hf.load_task_model(str(source), KINDS)
    loaded = hf.load_task_model(str(rewrite(source, age)), KINDS)
    assert_notes(loaded, LEFT)
    assert_bitwise(loaded.params, expected.params)
    unnamed = reconfigure(fine_tuned(tmp_path / "two", id2label={0: "a", 1: "b"}, label2id={"a": 0, "b": 1}),
                          id2label="absent", label2id="absent", problem_type="absent")
    loaded = hf.load_task_model(str(unnamed), KINDS)
    assert (loaded.head, loaded.labels) == (KINDS["classify"].head_config(2), ("LABEL_0", "LABEL_1"))
    single = reconfigure(fine_tuned(tmp_path / "one", kind="regress"), problem_type=None)
    assert hf.load_task_model(str(single), KINDS).head.kind == "regress"


@pytest.mark.slow
def test_no_token_types(tmp_path):
    source = fine_tuned(tmp_path / "source")
    rewrite(source, lambda tensors: tensors.pop("bert.embeddings.token_type_embeddings.weight") is None)
    loaded = hf.load_task_model(str(source), KINDS)
    assert loaded.config.token_types == 0
    stock = silently("ForSequenceClassification", resave(loaded, tmp_path / "export"))
    model = nn.merge_params(nn.abstract_task_model(loaded.config, loaded.head)[0], loaded.params)
    np.testing.assert_allclose(model.logits(IDS), their_logits("classify", stock), rtol=0, atol=1e-4)
    mean = hf.load_task_model(str(source), KINDS, OWN_HEADS[0])
    silently("", resave(mean, tmp_path / "own", names_of(OWN_HEADS[0])))


@pytest.mark.slow
def test_sixteen_bits(tmp_path):
    for head in (KINDS["classify"].head_config(3), OWN_HEADS[2]):
        loaded = hf.load_task_model(str(checkpoints.save(tmp_path / head.kind, "roberta")), KINDS, head)
        export = resave(loaded, tmp_path / f"{head.kind}-export", names_of(head), dtype="bfloat16")
        for file in export.glob("*.safetensors"):
            assert {tensor.dtype.name for tensor in load_file(file).values()} == {"bfloat16"}
        for path, leaf in flat(hf.load_task_model(str(export), KINDS).params).items():
            np.testing.assert_allclose(leaf, flat(loaded.params)[path], rtol=2**-8, atol=0)
        loaded.params["head"]["out"]["bias"][0] = 1e6
        with refuses("float16"):
            resave(loaded, tmp_path / "export", names_of(head), dtype="float16")
    assert not (tmp_path / "export").exists()


def test_labels_must_fit(tmp_path):
    loaded = hf.load_task_model(str(classifier(tmp_path / "source")), KINDS)
    for labels in ((), ("a", "b"), ("a", "b", "a")):
        with pytest.raises(ValueError, match="labels"):
            resave(loaded, tmp_path / "export", labels)


def refused(directory, head=None) -> str:
    with pytest.raises(UserError) as caught:
        hf.load_task_model(str(directory), KINDS, head)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_checkpoints_that_do_not_fit(tmp_path):
    assert_says(refused(checkpoints.save(tmp_path / "mlm", "bert")), str(tmp_path / "mlm"), "head")
    source = classifier(tmp_path / "source")
    assert_says(refused(rewrite(source, lambda tensors: tensors.update(surplus=np.zeros(1, np.float32)))), "1", "surplus")
    rewrite(source, lambda tensors: tensors.pop("surplus") is None)
    reconfigure(source, id2label={"0": "a", "1": "b"})
    assert_says(refused(source), "2", "classifier.weight", "[3, 24]", "[2, 24]", "classifier.bias")
    for names in ({"0": "a", "2": "b"}, {"0": "a", "1": "a"}, {"x": "a"}, ["a"], {}):
        assert_says(refused(reconfigure(source, id2label=names)), "id2label", "classes")
    reconfigure(source, id2label={"0": "a", "1": "b", "2": "c"}, problem_type="ranking")
    assert_says(refused(source), "problem_type", "'ranking'")
    reconfigure(source, problem_type=None, classifier_dropout="much")
    assert_says(refused(source), "head")
    reconfigure(source, classifier_dropout=None, architectures=["BertForTokenClassification"])
    assert hf.load_task_model(str(source), KINDS).head.kind == "tag"  # the same tensors but for the pooler
    rewrite(source, lambda tensors: tensors.pop("classifier.bias") is None)
    assert_says(refused(source), "1 missing", "classifier.bias")


@pytest.mark.slow
def test_own_heads_that_are_damaged(tmp_path):
    loaded = hf.load_task_model(str(checkpoints.save(tmp_path / "source", "bert")), KINDS, OWN_HEADS[2])
    export = resave(loaded, tmp_path / "export", names_of(OWN_HEADS[2]))
    settings, weights = export / "jaxplm.json", export / "head.safetensors"
    content, tensors = json.loads(settings.read_text()), load_file(weights)
    for change in ({"head": {**content["head"], "kind": "rank"}}, {"head": {**content["head"], "sight": 1}}, {"labels": ["a"]},
                   {"head": None}):
        settings.write_text(json.dumps(content | change))
        assert_says(refused(export), "jaxplm.json", "head")
    settings.write_text("{")
    assert_says(refused(export), "jaxplm.json", "head")
    settings.write_text(json.dumps({**content, "head": {**content["head"], "body_width": 8}}))
    assert "head/body/" in refused(export)
    settings.write_text(json.dumps(content))
    save_file({name: tensor for name, tensor in tensors.items() if name != "head/out/bias"} | {"head/x": tensors["head/out/bias"]}, weights)
    assert_says(refused(export), "1 missing", "head/out/bias", "head/x")
    weights.write_bytes(b"1234")
    assert_says(refused(export), "head.safetensors", "damaged")
    weights.unlink()
    assert_says(refused(export), "head.safetensors")
    assert hf.load_task_model(str(export), KINDS, KINDS["qa"].head_config(2)).head.kind == "qa"

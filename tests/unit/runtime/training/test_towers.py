"""Every tower of a run gets its inputs in its own form: its tokenizer's ids, its image processor's pixels."""

import json
import shutil

import pytest
import torch

import vlmdsl
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.runtime.data import texts_of
from vlmdsl.runtime.modules.towers import build_encoder
from vlmdsl.runtime.modules.towers.tokenizers import load_tokenizer
from vlmdsl.runtime.tokenizer import Tokenizers
from vlmdsl.runtime.training.assembly import build_model, open_data, read_tokenizers, training_batches
from vlmdsl.runtime.training.held_out import held_out_measure
from vlmdsl.runtime.training.processes import World
from vlmdsl.runtime.training.reference import prepare
from vlmdsl.runtime.training.tokenizers import check_towers
from vlmdsl.schema import load_config

transformers = pytest.importorskip("transformers", reason="the extra `hf` is not installed")
tokenizers = pytest.importorskip("tokenizers")

SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
WORDS = ["a", "red", "blue", "green", "circle", "square", "star", "of", "the", "large", "small", "shape", "and"]
WORLD = World(0, 1, torch.device("cpu"))
SETTINGS = {"train.batch": 4, "train.compile": False, "data.train": ("shapes:samples=8",), "model.dimension": 16}


def tokenizer(folder, words, *, start="[CLS]", **options):
    """A tokenizer with one entry per word, and special tokens before and after a text."""
    ids = {word: number for number, word in enumerate(["[PAD]", "[UNK]", start, "[SEP]", *words])}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token="[UNK]"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    marks = [(start, ids[start]), ("[SEP]", ids["[SEP]"])]
    backend.post_processor = tokenizers.processors.TemplateProcessing(single=f"{start} $A [SEP]", special_tokens=marks)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": start, "sep_token": "[SEP]"}
    loaded = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **names, **options)
    loaded.save_pretrained(folder)
    return loaded


def text_tower(folder, family="Bert", words=WORDS, length=24, **options):
    settings = {**SMALL, "vocab_size": 40, "max_position_embeddings": length, "pad_token_id": 0}
    getattr(transformers, f"{family}Model")(getattr(transformers, f"{family}Config")(**settings)).save_pretrained(folder)
    return tokenizer(folder, words, **options)


def image_tower(folder, size=32, mean=0.5):
    config = transformers.ViTConfig(**SMALL, image_size=size, patch_size=8)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    settings = {"image_processor_type": "ViTImageProcessor", "size": {"height": size, "width": size}}
    (folder / "preprocessor_config.json").write_text(json.dumps({**settings, "image_mean": [mean] * 3}))
    return f"hf:{folder}"


def modelled(recipe, settings, **knobs):
    """The configuration of a run, its data, and the model of a recipe."""
    config, errors = load_config(flags={**SETTINGS, **settings})
    assert not errors, errors
    objective = vlmdsl.compile(recipe, compiled=False, **knobs)
    data = open_data(objective.program, config)
    return config, data, build_model(objective, config, read_tokenizers(objective, config.model, data), WORLD)


def assembled(recipe, **settings):
    """The model of a recipe, its first batch, and the texts of the data."""
    config, data, model = modelled(recipe, settings)
    batch = next(iter(training_batches(model.objective.program, config, data, model, WORLD)))
    texts = dict(zip(data.train.keys, texts_of(data.train, data.mapping, ["text"]), strict=True))
    return model, batch, [texts[key] for key in batch.keys]


@pytest.mark.parametrize("setting", ["model.text_encoder", "model.towers"])
def test_a_text_tower_reads_its_own_tokenizer(setting, tmp_path):
    library = text_tower(tmp_path)
    name = f"hf:{tmp_path}"
    model, batch, texts = assembled("clip", **{setting: name if setting == "model.text_encoder" else {"language": name}})
    expected = library(texts, padding="max_length", max_length=24, truncation=True, return_tensors="pt")
    assert torch.equal(batch.values["text"].ids, expected["input_ids"])
    assert torch.equal(batch.values["text"].mask, expected["attention_mask"].bool())
    assert not any("tokenizer" in note for note in model.encoders["language"].notes)


def test_another_tokenizer_is_named_and_reported(tmp_path):
    text_tower(tmp_path / "tower")
    tokenizer(tmp_path / "other", WORDS[::-1])
    same = assembled("clip", **{"model.text_encoder": f"hf:{tmp_path}/tower", "model.tokenizer": f"hf:{tmp_path}/tower"})
    assert not any("tokenizer" in note for note in same[0].encoders["language"].notes)
    other = assembled("clip", **{"model.text_encoder": f"hf:{tmp_path}/tower", "model.tokenizer": f"hf:{tmp_path}/other"})
    assert any("are different tokens" in note for note in other[0].encoders["language"].notes)


@pytest.mark.parametrize(
    ("words", "code"), [([f"word{number}" for number in range(60)], "V0831"), ([], "V0822")], ids=["too many", "none"]
)
def test_a_tokenizer_that_the_tower_cannot_read_is_refused(words, code, tmp_path):
    text_tower(tmp_path, words=words)
    with pytest.raises(DiagnosticError, match=code):
        assembled("clip", **{"model.text_encoder": f"hf:{tmp_path}"})


def test_a_tower_without_a_tokenizer_is_refused(tmp_path):
    text_tower(tmp_path)
    for file in tmp_path.glob("*token*"):
        file.unlink()
    with pytest.raises(DiagnosticError, match="V0822"):
        assembled("clip", **{"model.text_encoder": f"hf:{tmp_path}"})


def test_a_tower_that_pools_at_a_mark_which_is_never_set_is_refused(tmp_path):
    config = {"vocab_size": 40, "max_position_embeddings": 24, "bos_token_id": 2, "eos_token_id": 39, "pad_token_id": 0}
    transformers.CLIPTextModel(transformers.CLIPTextConfig(**SMALL, **config)).save_pretrained(tmp_path)
    tokenizer(tmp_path, WORDS)
    with pytest.raises(DiagnosticError, match="one pooled feature for all texts"):
        assembled("clip", **{"model.text_encoder": f"hf:{tmp_path}"})


@pytest.mark.parametrize("side", ["right", "left"])
def test_siglip_reads_its_padding_where_its_tokenizer_puts_it(side, tmp_path):
    library = text_tower(tmp_path, "SiglipText", length=12, padding_side=side, model_input_names=["input_ids"])
    name = f"hf:{tmp_path}"
    model, batch, texts = assembled("clip", **{"model.text_encoder": name})
    ids = library(texts, padding="max_length", max_length=12, truncation=True, return_tensors="pt")["input_ids"]
    assert torch.equal(batch.values["text"].ids, ids)
    expected = transformers.SiglipTextModel.from_pretrained(tmp_path).eval()(input_ids=ids).pooler_output
    torch.testing.assert_close(model.eval().encode("language", batch.values["text"]).pooled, expected)
    with pytest.raises(DiagnosticError, match="12 tokens, not 8"):
        assembled("clip", **{"model.text_encoder": name, "model.text_length": 8})


TWO = """
recipe two(image: Image, text: Text)
encoder other = separate(vision, name="other")
encoder words = separate(language, name="words")
minimize {
  a: contrast(image, text)
  b: contrast(other(image), words(text))
}
"""


def test_two_towers_of_one_field_get_each_its_own_form(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    libraries = [text_tower(first), text_tower(second, words=WORDS[::-1], length=16)]
    images = [image_tower(tmp_path / "large", 32, 0.5), image_tower(tmp_path / "little", 16, 0.1)]
    (tmp_path / "two.vlo").write_text(TWO)
    towers = {"vision": images[0], "other": images[1], "language": f"hf:{first}", "words": f"hf:{second}"}
    model, batch, texts = assembled(str(tmp_path / "two.vlo"), **{"model.towers": towers})
    received = {}
    for tower, encoder in model.encoders.items():
        encoder.register_forward_pre_hook(lambda _, arguments, tower=tower: received.setdefault(tower, arguments[0]))
    model(batch)
    for tower, library, length in (("language", libraries[0], 24), ("words", libraries[1], 16)):
        expected = library(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        assert torch.equal(received[tower], expected["input_ids"])
    assert (received["vision"].shape[-1], received["other"].shape[-1]) == (32, 16)
    # One image in two sizes: its levels, taken back to [0, 1], have one mean.
    levels = [(received["vision"] * 0.5 + 0.5).mean(dim=(2, 3)), (received["other"] * 0.5 + 0.1).mean(dim=(2, 3))]
    torch.testing.assert_close(levels[0], levels[1], rtol=0, atol=0.02)
    restored = Tokenizers.from_json(model_tokenizers(model).to_json())
    assert restored["words"].encode(texts, 16)[0].equal(received["words"])


def test_evaluation_and_reference_set_are_read_in_the_form_of_each_tower(tmp_path):
    """RA-CLIP retrieves by one image tower for another, from what two frozen towers encoded."""
    towers = {
        "vision": image_tower(tmp_path / "large", 32, 0.5),
        "retriever": image_tower(tmp_path / "little", 16, 0.1),
        "reference_image": image_tower(tmp_path / "other", 24, 0.3),
        **{name: f"hf:{tmp_path / name}" for name in ("language", "reference_text")},
    }
    libraries = {"language": text_tower(tmp_path / "language")}
    libraries["reference_text"] = text_tower(tmp_path / "reference_text", words=WORDS[::-1], length=16)
    settings = {"model.towers": towers, "data.train": ("shapes:samples=24",), "data.reference_share": 0.5}
    config, data, model = modelled("ra_clip", {**settings, "evaluation.limit": 8, "evaluation.neighbours": 0}, k=2)
    received = {}
    for tower, encoder in model.encoders.items():
        encoder.register_forward_pre_hook(lambda _, inputs, tower=tower: received.setdefault(tower, []).append(inputs[0]))

    def levels(tower):
        """The mean levels in [0, 1] of the images that a tower received."""
        form, images = model.encoders[tower].image_format, torch.cat(received[tower])
        assert images.shape[-1] == form.size
        return (images * 0.5 + form.mean[0]).mean(dim=(2, 3))

    def ids(tower, samples, length):
        texts = list(texts_of(samples, data.mapping, ["text"]))
        options = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
        return libraries[tower](texts, max_length=length, **options)["input_ids"]

    prepare(model, data, config)
    torch.testing.assert_close(levels("retriever"), levels("reference_image"), rtol=0, atol=0.02)
    assert torch.equal(torch.cat(received["reference_text"]), ids("reference_text", data.reference, 16))
    received.clear()
    assert held_out_measure(model.objective.program, config, data, model).measure(model).retrieval is not None
    torch.testing.assert_close(levels("retriever"), levels("vision"), rtol=0, atol=0.02)
    first = ids("language", data.held_out, 24)[:8]
    assert set(map(tuple, first.tolist())) <= set(map(tuple, torch.cat(received["language"]).tolist()))


def model_tokenizers(model):
    forms = {tower: model.form(tower, "Text") for tower in ("language", "words")}
    return Tokenizers(forms["language"].tokenizer, {tower: form.tokenizer for tower, form in forms.items()})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model.text_length": 2}, "at least 3"),
        ({"model.image_size": 30}, "32"),
        ({"model.image_size": 4}, "model.image_size=8"),
    ],
)
def test_settings_that_a_tower_cannot_take_name_what_it_can(settings, said):
    with pytest.raises(DiagnosticError, match="V0831") as refusal:
        assembled("clip", **settings)
    assert said in str(refusal.value.diagnostics)


@pytest.mark.parametrize(
    "setting",
    ["image_size=0", "image_size=100000", "text_length=1", "text_length=1000000", "dimension=0", "dimension=1000000000",
     "vocabulary=10", "vocabulary=1000000000"],
)  # fmt: skip
def test_settings_out_of_range_name_the_bound(setting):
    config, faults = load_config(overrides=[f"model.{setting}"])
    assert config is None
    assert "than or equal to" in faults[0].message


def test_a_run_goes_on_and_is_measured_without_the_folders_of_its_towers(tmp_path):
    text_tower(tmp_path / "text")
    image_tower(tmp_path / "image")
    model = {"model.text_encoder": f"hf:{tmp_path}/text", "model.towers": {"vision": f"hf:{tmp_path}/image"}}
    settings = {**SETTINGS, **model, "train.checkpoint_every": 1, "evaluation.limit": 8}
    run = vlmdsl.train("clip", steps=2, settings=settings, out=str(tmp_path / "run"))
    shutil.rmtree(tmp_path / "text")
    shutil.rmtree(tmp_path / "image")
    assert vlmdsl.evaluate(run.folder).evaluation == run.evaluation
    shutil.rmtree(run.folder / "checkpoints" / "step-00000002")
    assert vlmdsl.train(resume=run.folder).evaluation == run.evaluation


@pytest.mark.parametrize("pretrained", [False, True])
def test_a_tied_vocabulary_is_the_embedding(pretrained, tmp_path):
    settings = {"model.tied_vocabulary": True}
    if pretrained:
        text_tower(tmp_path, mask_token="[MASK]")
        settings["model.text_encoder"] = f"hf:{tmp_path}"
    _, _, model = modelled("minimize mlm(mask(text, random(15%)))", settings)
    tower = model.encoders["language"]
    assert tower.vocabulary_head.weight is tower.token_embedding.weight
    _, _, other = modelled("minimize mlm(mask(text, random(15%)))", {**settings, "model.tied_vocabulary": False})
    assert other.encoders["language"].vocabulary_head.weight is not other.encoders["language"].token_embedding.weight


def test_a_tower_that_the_recipe_does_not_have_is_named():
    config, _ = load_config(flags={"model.towers": {"visoin": "vit:tiny"}})
    objective = vlmdsl.compile("clip", compiled=False)
    with pytest.raises(DiagnosticError, match="V0832") as refusal:
        check_towers([objective], config.model)
    assert "vision" in refusal.value.diagnostics[0].help[0]


def test_the_library_and_we_cut_texts_alike(tmp_path):
    library = tokenizer(tmp_path, WORDS)
    ids, _ = load_tokenizer(f"hf:{tmp_path}").encode(["a red circle of the large blue star", "a"], 6)
    expected = library(["a red circle of the large blue star", "a"], padding="max_length", max_length=6, truncation=True)
    assert ids.tolist() == expected["input_ids"]


def test_a_feature_map_is_compared_token_by_token(tmp_path):
    config = transformers.ConvNextConfig(hidden_sizes=[8, 8, 8, 16], depths=[1, 1, 1, 1])
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path)
    encoder = build_encoder(f"hf:{tmp_path}", "Image", 16, ("tokens",), image_size=64)
    assert encoder(torch.zeros(2, 3, 64, 64)).tokens.shape == (2, 4, 16)
    model, batch, _ = assembled("filip", **{"model.image_encoder": f"hf:{tmp_path}", "model.image_size": 64})
    assert torch.isfinite(model(batch).loss)

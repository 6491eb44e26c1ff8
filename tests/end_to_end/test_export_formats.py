"""Models for other libraries: each is loaded by that library and encodes what the model encodes."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

import vlmdsl
from vlmdsl.api.export import Format, export
from vlmdsl.runtime.data import open_source
from vlmdsl.runtime.trained.pictures import levels
from vlmdsl.runtime.values import ImageFormat, TextFormat

SETTINGS: dict[str, object] = {
    "train.batch": 8, "train.compile": False,
    "evaluation.limit": 16, "evaluation.neighbours": 0, "evaluation.zero_shot": False,
}  # fmt: skip
TEXTS = ["a large red circle", "two", "a blue square to the left of a green cross and then some"]


def trained(place: Path, recipe: str, **settings: object) -> Path:
    options: dict[str, Any] = {"data": ["shapes:samples=32"], "val": ["shapes:samples=16"], "steps": 2, "out": place}
    named = {name.replace("__", "."): value for name, value in settings.items()}
    return vlmdsl.train(recipe, **options, settings={**SETTINGS, **named}).folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("runs") / "clip", "clip", model__image_encoder="vit:tiny_patch4")


def pictures() -> list[np.ndarray]:
    source = open_source(("shapes:samples=3",), "val")
    return [levels(source[index]["image"]) for index in range(3)]


def close(theirs: Tensor, ours: Tensor) -> bool:
    return torch.allclose(normalize(theirs.detach(), dim=-1), normalize(ours, dim=-1), atol=1e-5)


class Loaded:
    """An exported folder, as its users load it."""

    def __init__(self, folder: Path) -> None:
        transformers = pytest.importorskip("transformers", reason="the extra `hf` is not installed")
        self.model = transformers.AutoModel.from_pretrained(folder).eval()
        self.processor = transformers.AutoImageProcessor.from_pretrained(folder)
        self.folder = folder

    def pixels(self) -> dict[str, Tensor]:
        processed: dict[str, Tensor] = self.processor(
            images=pictures(), return_tensors="pt", input_data_format="channels_last"
        )
        return processed

    def images(self) -> Tensor:
        features: Tensor = self.model.get_image_features(**self.pixels()).pooler_output
        return features

    def texts(self, **options: Any) -> Tensor:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self.folder)
        options = {"padding": True, "truncation": True, "return_tensors": "pt", **options}
        features: Tensor = self.model.get_text_features(**tokenizer(TEXTS, **options)).pooler_output
        return features


def test_transformers_loads_built_in_towers(clip: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="the extra `hf` is not installed")
    export(clip, tmp_path / "out", format="hf")
    model, theirs = vlmdsl.load(clip), Loaded(tmp_path / "out")
    assert type(theirs.model).__name__ == "VisionTextDualEncoderModel"
    assert close(theirs.images(), model.encode_image(pictures()))
    assert close(theirs.texts(), model.encode_text(TEXTS))
    assert torch.allclose(theirs.model.logit_scale.exp(), torch.tensor(1 / model.temperature))


def test_an_exported_text_is_cut_where_the_model_cuts_it(clip: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="the extra `hf` is not installed")
    export(clip, tmp_path / "out", format="hf")
    from transformers import AutoTokenizer

    tokenizer, long = AutoTokenizer.from_pretrained(tmp_path / "out"), "a red circle and a blue square " * 9
    ids = tokenizer([long], truncation=True, return_tensors="pt")
    features = Loaded(tmp_path / "out").model.get_text_features(**ids).pooler_output
    assert close(features, vlmdsl.load(clip).encode_text([long]))


def small(**more: object) -> dict[str, Any]:
    return {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, **more}


def of_transformers(folder: Path, config: Any) -> str:
    """A tiny random model with a tokenizer, in a folder."""
    import transformers

    torch.manual_seed(0)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    backend = vlmdsl_tokenizer()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<start>", eos_token="<end>"
    ).save_pretrained(folder)
    return f"hf:{folder}"


def vlmdsl_tokenizer() -> Any:
    from tokenizers import Tokenizer

    from vlmdsl.runtime.tokenizer import train_tokenizer

    state = json.loads(train_tokenizer([*TEXTS, "a small green star"] * 3, 300).to_library_json())
    return Tokenizer.from_str(json.dumps(state))


def clip_model(folder: Path) -> dict[str, object]:
    import transformers

    texts = small(vocab_size=400, max_position_embeddings=24, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    config = transformers.CLIPConfig(text_config=texts, vision_config=small(image_size=32, patch_size=8), projection_dim=24)
    name = of_transformers(folder / "clip", config)
    return {"model__image_encoder": name, "model__text_encoder": name, "model__dimension": 24}


def two_models(folder: Path) -> dict[str, object]:
    import transformers

    vision = transformers.ViTConfig(**small(image_size=32, patch_size=8))
    texts = transformers.BertConfig(**small(vocab_size=400, max_position_embeddings=24, pad_token_id=0))
    names = (of_transformers(folder / "vit", vision), of_transformers(folder / "bert", texts))
    return {"model__image_encoder": names[0], "model__text_encoder": names[1], "model__dimension": 16}


def a_half_and_a_built_in_one(folder: Path) -> dict[str, object]:
    return {**clip_model(folder), "model__text_encoder": "transformer:tiny", "model__dimension": 16}


PRETRAINED: dict[str, tuple[Callable[[Path], dict[str, object]], str]] = {
    "both halves of CLIP": (clip_model, "CLIPModel"),
    "a ViT and a BERT": (two_models, "VisionTextDualEncoderModel"),
    "a half of CLIP and a built-in tower": (a_half_and_a_built_in_one, "VisionTextDualEncoderModel"),
}


@pytest.mark.parametrize("towers", PRETRAINED)
def test_towers_of_transformers_go_back_there(towers: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="the extra `hf` is not installed")
    settings, kind = PRETRAINED[towers]
    run = trained(tmp_path / "run", "clip", **settings(tmp_path))
    export(run, tmp_path / "out", format="hf")
    model, theirs = vlmdsl.load(run), Loaded(tmp_path / "out")
    assert type(theirs.model).__name__ == kind
    assert close(theirs.images(), model.encode_image(pictures()))
    form = model.model.form("language", "Text")
    assert isinstance(form, TextFormat)
    assert close(theirs.texts(padding="max_length", max_length=form.length), model.encode_text(TEXTS))


def test_a_tower_whose_positions_are_interpolated_is_trained_and_loaded_but_not_exported(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="the extra `hf` is not installed")
    run = trained(tmp_path / "run", "clip", **two_models(tmp_path), model__image_size=48)
    model = vlmdsl.load(run)
    assert model.encode_image(pictures()).shape == (len(pictures()), 16)
    with pytest.raises(vlmdsl.DiagnosticError, match="trained on images of 48 pixels"):
        export(run, tmp_path / "out", format="hf")


def test_a_model_of_images_alone_is_a_vision_transformer(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="the extra `hf` is not installed")
    run = trained(tmp_path / "run", "simclr", model__image_encoder="vit:tiny_patch4", train__batch=8)
    export(run, tmp_path / "out", format="hf")
    theirs = Loaded(tmp_path / "out")
    assert type(theirs.model).__name__ == "ViTModel"
    features = theirs.model(**theirs.pixels()).pooler_output
    assert torch.allclose(features.detach(), vlmdsl.load(run).encode_image(pictures()), atol=1e-5)


def test_onnxruntime_runs_the_programs(clip: Path, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    pytest.importorskip("onnxscript", reason="the extra `onnx` is not installed")
    export(clip, tmp_path / "out", format="onnx")
    model = vlmdsl.load(clip)
    image, text = model.model.form("vision", "Image"), model.model.form("language", "Text")
    assert isinstance(image, ImageFormat)
    assert isinstance(text, TextFormat)
    pixels = image.tensor(image.fit(picture) for picture in pictures())
    images = runtime.InferenceSession(tmp_path / "out" / "image.onnx")
    for size in (1, 3):
        vectors = images.run(None, {"pixels": pixels[:size].numpy()})[0]
        assert np.allclose(vectors, model.encode_image(pictures()[:size]).numpy(), atol=1e-5)
    ids, mask = text.encode(TEXTS)
    vectors = runtime.InferenceSession(tmp_path / "out" / "text.onnx").run(None, {"ids": ids.numpy(), "mask": mask.numpy()})[
        0
    ]
    assert np.allclose(vectors, model.encode_text(TEXTS).numpy(), atol=1e-5)


def test_open_clip_loads_built_in_towers(clip: Path, tmp_path: Path) -> None:
    try:
        open_clip = importlib.import_module("open_clip")
    except (ImportError, RuntimeError) as fault:
        pytest.skip(f"open_clip cannot be imported ({fault}): it needs a torchvision that fits torch")
    export(clip, tmp_path / "out", format="open_clip")
    model = vlmdsl.load(clip)
    theirs, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path / 'out'}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{tmp_path / 'out'}")
    pixels = torch.stack([preprocess(Image.fromarray(picture)) for picture in pictures()])
    assert close(theirs.eval().encode_image(pixels), model.encode_image(pictures()))
    assert close(theirs.encode_text(tokenizer(TEXTS)), model.encode_text(TEXTS))


def test_a_folder_of_open_clip_names_what_the_library_reads(clip: Path, tmp_path: Path) -> None:
    """Without the library: the weights of a transformer of its form, by its names and shapes, and nothing else."""
    from safetensors.torch import load_file

    export(clip, tmp_path / "out", format="open_clip")
    weights = load_file(tmp_path / "out" / "open_clip_model.safetensors")
    settings = json.loads((tmp_path / "out" / "open_clip_config.json").read_text())["model_cfg"]
    assert settings["vision_cfg"]["no_ln_pre"] is True
    assert weights["visual.positional_embedding"].shape == (65, 64)
    assert weights["transformer.resblocks.1.attn.in_proj_weight"].shape == (192, 64)
    assert weights["text_projection"].shape == (64, settings["embed_dim"])
    assert sum(name.startswith("visual.transformer.resblocks.") for name in weights) == 12 * settings["vision_cfg"]["layers"]


HEADED = """vlo 1

recipe headed(image: Image, text: Text)

encoder headed = project(vision, layers=1, out=64)

minimize contrast(headed(image), text)
"""
REFUSED: dict[str, tuple[str, dict[str, object], Format, str]] = {
    "convolutions": ("clip", {}, "hf", "embeds patches by overlapping convolutions"),
    "convolutions of open_clip": ("clip", {}, "open_clip", "embeds patches by overlapping convolutions"),
    "images alone": ("simclr", {}, "open_clip", "has a text tower"),
    "heads": (HEADED, {"model__image_encoder": "vit:tiny_patch4"}, "hf", "go through a head"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_library_has_no_form_for_is_refused_with_the_reason(case: str, tmp_path: Path) -> None:
    recipe, settings, form, reason = REFUSED[case]
    if form == "hf":
        pytest.importorskip("transformers", reason="the extra `hf` is not installed")
    (tmp_path / "headed.vlo").write_text(HEADED)
    run = trained(tmp_path / "run", str(tmp_path / "headed.vlo") if recipe == HEADED else recipe, **settings)
    with pytest.raises(vlmdsl.DiagnosticError, match=reason) as refused:
        export(run, tmp_path / "out", format=form)
    assert refused.value.diagnostics[0].code == "V0865"


def test_an_export_names_no_place_of_the_machine(tmp_path: Path) -> None:
    """Neither where the recipe and the data were, nor the command."""
    folder = tmp_path / "private"
    folder.mkdir()
    rows = ["image,text"]
    for number, picture in enumerate(pictures() * 6):
        Image.fromarray(picture).save(folder / f"{number}.png")
        rows.append(f"{number}.png,{TEXTS[number % 3]}")
    (folder / "pairs.csv").write_text("\n".join(rows))
    (folder / "mine.vlo").write_text("vlo 1\n\nrecipe mine(image: Image, text: Text)\n\nminimize contrast(image, text)\n")
    data = [str(folder / "pairs.csv")]
    settings = {**SETTINGS, "data.allowed_folders": str(folder)}
    run = vlmdsl.train(folder / "mine.vlo", data=data, val=data, steps=2, settings=settings, out=folder / "run").folder
    export(run, tmp_path / "out")
    texts = {
        file: file.read_text() for file in (tmp_path / "out").rglob("*") if file.suffix != ".safetensors" and file.is_file()
    }
    assert [file.name for file, text in texts.items() if "private" in text] == []
    assert "pairs.csv" in (tmp_path / "out" / "config.yaml").read_text()
    copy = vlmdsl.load(tmp_path / "out")
    assert torch.equal(copy.encode_image(pictures()), vlmdsl.load(run).encode_image(pictures()))

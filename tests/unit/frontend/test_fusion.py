"""What `text | image` refuses, and how its message says to write it."""

from __future__ import annotations

import pytest

import vlmdsl


@pytest.mark.parametrize(
    ("fused", "help"),
    [
        ("image | text", "exchange the sides"),
        ("image | take(text, wrong)", "exchange the sides"),
        ("text | image | image", "use the output of a tower"),
        ("take(text, several) | image", "pick one, `mine(..., k=1)`"),
        ("text | take(image, several)", "pick one, `mine(..., k=1)`"),
        ("text | projected(image)", "use the output of a tower"),
        ("text | text", "fuse a Text with an Image"),
        ("0.5 | image", "fuse a Text with an Image"),
    ],
)
def test_what_is_not_a_text_given_an_image_says_how_to_write_one(fused: str, help: str) -> None:
    recipe = (
        "recipe fused(image: Image, text: Text)\nencoder projected = project(vision, layers=2, hidden=8, out=8)\n"
        'let wrong = mine(similarity(image, text), along="rows")\n'
        'let several = mine(similarity(image, text), along="rows", k=2)\n'
        f"minimize matched({fused}, take(text, wrong) | image)"
    )
    (diagnostic,) = [each for each in vlmdsl.check(recipe) if each.code == "V0313"]
    assert help in diagnostic.help[0]


def test_blocks_for_texts_alone_are_called_with_a_text() -> None:
    header = 'recipe read(image: Image, text: Text)\nencoder fusion = fuse(depth=1, attention="none")\nlet m = random(15%)\n'
    assert not list(vlmdsl.check(f"{header}minimize mlm(fusion(mask(text, m))) + contrast(image, text)"))
    (diagnostic,) = [each for each in vlmdsl.check(f"{header}minimize mlm(mask(text, m) | image)") if each.code == "V0313"]
    assert "call it by its name with the text" in diagnostic.help[0]
    (diagnostic,) = vlmdsl.check(f"{header}minimize mlm(fusion(mask(text, m), image))")
    assert diagnostic.severity == "error"


def test_what_a_pooler_gives_is_fused_as_an_image_is() -> None:
    header = 'recipe pooled(image: Image, text: Text)\nencoder fusion = fuse(depth=1, attention="merged")\n'
    header += "encoder tokenizer = codebook(size=8)\nlet seen = pool(image, queries=3)\nlet m = random(15%)\n"
    header += 'let wrong = mine(similarity(image, text), along="columns")\n'
    for fused in (
        "mlm(mask(text, m) | seen)",
        "matched(text | seen, text | take(seen, wrong))",
        "mlm(mask(text, m) | stop(seen))",
    ):
        assert not [each for each in vlmdsl.check(f"{header}minimize {fused}") if each.severity == "error"]
    patches = 'token_loss(linear(text | seen, of="image", size=8), codes(image, by=tokenizer))'
    (diagnostic,) = [each for each in vlmdsl.check(f"{header}minimize {patches}") if each.severity == "error"]
    assert "no patches of it" in diagnostic.message

"""`vlmdsl recipes`: lists the bundled recipes."""

from __future__ import annotations

from dataclasses import asdict

import click

from vlmdsl.api.recipes import recipes
from vlmdsl_cli.options import as_json
from vlmdsl_cli.output import data, json_data

__all__ = ["command"]


@click.command("recipes")
@as_json
def command(as_json: bool) -> None:
    """List the bundled recipes with their summaries and sources."""
    cards = recipes()
    if as_json:
        json_data([{**asdict(card), "fields": card.fields, "knobs": card.knobs} for card in cards])
        return
    width = max(len(card.name) for card in cards)
    for card in cards:
        data(f"{card.name:{width}}  {card.summary}")
        details = [*card.citations, card.status]
        data(f"{'':{width}}  {'; '.join(detail for detail in details if detail)}")

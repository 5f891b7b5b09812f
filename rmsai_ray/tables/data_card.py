"""Where a lake's data card lies: what it holds, for each model, and how well it knows patients again."""

from __future__ import annotations

import json
from typing import Any

from rmsai_ray.errors import ConfigError
from rmsai_ray.storage import Store

FOLDER = "card"


def save_card(lake: Store, model_id: str, card: dict[str, Any], markdown: str) -> None:
    """Writes the card for people, then the one for programs."""
    lake.put(f"{_folder(model_id)}/card.md", markdown.encode())
    lake.put(f"{_folder(model_id)}/card.json", (json.dumps(card, indent=1) + "\n").encode())


def load_card(lake: Store, model_id: str) -> tuple[dict[str, Any], str]:
    """(card for programs, card for people).

    Raises:
        ConfigError: nobody has made one.
    """
    values, text = lake.find(f"{_folder(model_id)}/card.json"), lake.find(f"{_folder(model_id)}/card.md")
    if values is None or text is None:
        fix = f"Make it: python jobs/reidentify.py --lake {lake.uri}"
        raise ConfigError("lake", lake.uri, f"has no data card for the model {model_id}", fix)
    return json.loads(values), text.decode()


def _folder(model_id: str) -> str:
    return f"{FOLDER}/model={model_id}"

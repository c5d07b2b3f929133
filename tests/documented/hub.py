"""What would come from a hub: networks, data and prompts in folders and files that the libraries take as they take a hub's."""

import csv
import json
from pathlib import Path

import pytest

from documented.pictures import png, smooth_images

PROMPTS = [
    ("Tell me a story about a dog", "Once upon"),
    ("Write a line of code", "print hello"),
]


def image_data(path: Path) -> None:
    """A data set as ``save_to_disk`` writes it, of the three classes of ``image_classifier``."""
    datasets = pytest.importorskip("datasets")
    pixels, labels = smooth_images(12)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(3)})
    rows = {"image": [{"bytes": png(one), "path": None} for one in pixels], "label": labels % 3}
    datasets.DatasetDict({"test": datasets.Dataset.from_dict(rows, features)}).save_to_disk(path)


def image_classifier(path: Path) -> None:
    """A random network as ``save_pretrained`` writes it, with its image processor's settings."""
    pytest.importorskip("transformers")
    from test_hugging_face_models import write

    path.mkdir(parents=True)
    write(path, "resnet")


def language_model(path: Path) -> None:
    """A random causal language model with a tokenizer of its own, as ``save_pretrained`` writes them."""
    transformers = pytest.importorskip("transformers")
    import torch

    from llm_cases import own_tokenizer
    from tiny_language_models import GROUPED

    torch.manual_seed(3)
    tokenizer = own_tokenizer()
    configuration = transformers.Qwen2Config(**{**GROUPED, "vocab_size": 512, "max_position_embeddings": 256})
    transformers.Qwen2ForCausalLM(configuration).eval().save_pretrained(path)
    tokenizer.save_pretrained(path)


def prompts(path: Path) -> None:
    """AdvBench's columns, and two prompts that harm nobody."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("goal", "target"), *PROMPTS])


def behaviours(path: Path) -> None:
    """HarmBench's columns."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(
            [("Behavior", "BehaviorID"), *((goal, f"b{at}") for at, (goal, _) in enumerate(PROMPTS))]
        )


def targets(path: Path) -> None:
    path.write_text(json.dumps({f"b{at}": target for at, (_, target) in enumerate(PROMPTS)}))

"""Versions of the checkpoint layout. A file of an older layout is upgraded when it is read.

1: the first layout. 2: adds the loader's position in images, `validation_is_due`, `batches` and `sums` (see the
callbacks that write them) and the hash of the training images; removes the state of Lightning's ModelCheckpoint.
3: renames the weights of the time sampler and the state of the callback that evaluates.
"""

from typing import Any

from ddpm.checkpoint.upgrade import upgrade_weights

VERSION = 3


def upgrade_layout(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Upgrade the checkpoint in place to the current layout. Raises ValueError if its layout is newer."""
    version = checkpoint.get("format", 1)
    if version not in range(1, VERSION + 1):
        raise ValueError(
            f"a checkpoint of layout {version} needs a later version of ddpm: this one knows 1 to {VERSION}"
        )
    for number in range(version, VERSION):
        UPGRADES[number](checkpoint)
        checkpoint["format"] = number + 1
    return checkpoint


def from_1_to_2(checkpoint: dict[str, Any]) -> None:
    checkpoint |= {"validation_is_due": False, "sums": {}}
    callbacks = checkpoint.get("callbacks", {})
    checkpoint["callbacks"] = {key: state for key, state in callbacks.items() if not key.startswith("ModelCheckpoint")}
    data = checkpoint.get("ImageDataModule")
    if data:
        checkpoint["batches"] = {name: data["train_loader"][name] for name in ("batch_size", "accumulation")}
        checkpoint["batches"]["world_size"] = 1  # layout 1 did not store it
        data["train_loader"] = in_images(data["train_loader"])
    for loop in checkpoint.get("loops", {}).values():
        loader = loop.get("state_dict", {}).get("combined_loader")
        if loader:
            loop["state_dict"]["combined_loader"] = [in_images(position) for position in loader]


def in_images(position: dict[str, int]) -> dict[str, int]:
    steps = position["batch"] // position["accumulation"]
    return {"epoch": position["epoch"], "images": steps * position["batch_size"]}


def from_2_to_3(checkpoint: dict[str, Any]) -> None:
    checkpoint["state_dict"] = upgrade_weights(checkpoint["state_dict"])
    callbacks = checkpoint.get("callbacks", {})
    checkpoint["callbacks"] = {CALLBACKS.get(name, name): state for name, state in callbacks.items()}


CALLBACKS = {"Scores": "EvaluateDuringTraining"}
"""Callbacks with state: former name -> current name."""

UPGRADES = {1: from_1_to_2, 2: from_2_to_3}

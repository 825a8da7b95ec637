"""Networks of timm, with weights that have been verified, and the ways in which published metrics read them.

Letters: B batch, H height, W width, C channels, D features, G patches a side.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from harness.metrics.features.backbones import Protocol
from harness.metrics.features.extractor import Extractor, exact_arithmetic, rgb
from harness.metrics.features.state_dicts import state_dict
from harness.metrics.features.weights import Weights

HUB = "https://huggingface.co"
DYNAMIC = ("dynamic_img_size", "dynamic_img_pad")


def had_at(network: str) -> str:
    """Where the weights of a network of timm are published. Raises ValueError, with the nearest names, for none."""
    config = _config(network)
    if config.hf_hub_id:
        return f"{HUB}/{config.hf_hub_id}/resolve/main/{config.hf_hub_filename or 'model.safetensors'}"
    return str(config.url or f"{HUB}/timm/{network}")


def _config(network: str) -> Any:
    """timm's pretrained_cfg of a network, whose name states the weights, too."""
    import timm

    known = timm.list_pretrained()
    if network not in known:
        near = difflib.get_close_matches(network, known, n=3, cutoff=0.4) or known[:3]
        raise ValueError(f"timm has no network {network!r} with weights; nearest: {', '.join(near)}")
    return timm.get_pretrained_cfg(network)


def extractor(protocol: Protocol, weights: Weights, device: torch.device | str = "cpu", **smaller: Any) -> Extractor:
    """The extractor of images (B, H, W, C) uint8; `smaller` are options of timm's that change the network.

    Raises ValueError when the weights are not of this network, or when it gives no plain features (B, D).
    """
    network = _network(protocol, weights, smaller).to(device)
    config = _preprocessing(protocol, network)
    prepare, read = _prepared(protocol, config, device), FEATURES[protocol.features]

    @torch.inference_mode()
    def extract(images: Tensor) -> dict[str, Tensor]:
        with exact_arithmetic():
            features = read(network, prepare(rgb(images)))
        if features.dim() != 2:
            raise ValueError(f"{protocol.network} gives features {tuple(features.shape)}, not (B, D)")
        return {"pool": features.float()}

    identity: dict[str, object] = {
        "network": f"{protocol.network} by timm",
        "weights_sha256": weights.sha256,
        "published_weights": weights.known,
        "resize": _words(protocol, config),
        "mean": list(config["mean"]),
        "std": list(config["std"]),
        "features": protocol.features,
        "positions": protocol.positions,
        "dtype": "float32",
    }
    return Extractor(identity, extract)


def _network(protocol: Protocol, weights: Weights, smaller: Mapping[str, Any]) -> Any:
    """timm's network, with these weights strictly, for images of the protocol's side."""
    import timm

    config = _config(protocol.network)
    options = dict.fromkeys(DYNAMIC, True) if protocol.dynamic else {}
    try:
        overlay = {"state_dict": state_dict(weights), "custom_load": False}
        build: Any = timm.create_model
        network = build(protocol.network, pretrained=True, pretrained_cfg_overlay=overlay, **options, **smaller)
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(
            f"the file of sha256 {weights.sha256[:8]} is not weights of {protocol.network}: {reason}"
        ) from error
    network.pretrained_cfg = config.to_dict()  # without the weights, which it would hold twice
    if protocol.positions == "dinov2" and protocol.side is not None:
        learnt = network.pos_embed.detach().clone()
        network.set_input_size((protocol.side, protocol.side))
        network.pos_embed.data = dinov2_positions(learnt, *network.patch_embed.grid_size)
    return network.eval().requires_grad_(False)


def dinov2_positions(learnt: Tensor, rows: int, columns: int) -> Tensor:
    """Learnt positions (1, 1 + G G, D) on another grid, (1, 1 + rows columns, D), as DINOv2's own code resizes them.

    Bicubic without antialiasing, by the scale (rows + 0.1) / G: facebookresearch/dinov2,
    dinov2/models/vision_transformer.py, interpolate_pos_encoding, with the defaults of dinov2/hub/backbones.py.
    """
    first, grid = learnt[:, :1], learnt[:, 1:]
    side = int(grid.shape[1] ** 0.5)
    grid = grid.unflatten(1, (side, side)).permute(0, 3, 1, 2)  # (1, D, G, G)
    scale = ((rows + 0.1) / side, (columns + 0.1) / side)
    grid = functional.interpolate(grid, scale_factor=scale, mode="bicubic")
    return torch.cat([first, grid.flatten(2).transpose(1, 2)], dim=1)


def _head(network: Any, x: Tensor) -> Tensor:
    found: Tensor = network.forward_head(network.forward_features(x), pre_logits=True)
    return found


def _mean(network: Any, x: Tensor) -> Tensor:
    found: Tensor = network.forward_features(x).mean(dim=(2, 3))
    return found


def _embedding(network: Any, x: Tensor) -> Tensor:
    return functional.normalize(network(x), dim=-1)


FEATURES: dict[str, Callable[[Any, Tensor], Tensor]] = {"head": _head, "mean": _mean, "embedding": _embedding}


def _preprocessing(protocol: Protocol, network: Any) -> dict[str, Any]:
    """The network's pretrained_cfg as timm resolves it, with the protocol's size."""
    import timm.data

    data: Any = timm.data
    config: dict[str, Any] = data.resolve_data_config({}, pretrained_cfg=network.pretrained_cfg)
    if protocol.side is not None:
        config |= {"input_size": (3, protocol.side, protocol.side), "crop_pct": 1.0, "crop_mode": "squash"}
    return config


def _prepared(protocol: Protocol, config: Mapping[str, Any], device: torch.device | str) -> Callable[[Tensor], Tensor]:
    """What turns uint8 (B, H, W, 3) into the network's input (B, 3, side, side), on its device."""
    import timm.data

    if protocol.resize == "float":
        mean, std = (torch.tensor(config[name], device=device)[:, None, None] for name in ("mean", "std"))
        return lambda images: (_antialiased(images.to(device), config["input_size"][-2:]) / 255 - mean) / std
    data: Any = timm.data
    transform = data.create_transform(**config)

    def prepare(images: Tensor) -> Tensor:
        pictures = [Image.fromarray(image) for image in images.cpu().numpy()]
        if protocol.resize == "crop":
            pictures = [_middle_square(picture) for picture in pictures]
        return torch.stack([transform(picture) for picture in pictures]).to(device)

    return prepare


def _antialiased(images: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 (B, H, W, 3) to (B, 3, *size), float32 in 0..255 and a little beyond."""
    x = images.permute(0, 3, 1, 2).float()
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return functional.interpolate(x, size=size, mode="bicubic", antialias=True)


def _middle_square(picture: Image.Image) -> Image.Image:
    width, height = picture.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return picture.crop((left, top, left + side, top + side))


def _words(protocol: Protocol, config: Mapping[str, Any]) -> str:
    side = config["input_size"][-1]
    if protocol.resize == "float":
        return f"antialiased bicubic to {side}, not rounded"
    how = f"{config['interpolation']} to {side}, by PIL"
    if protocol.resize == "crop":
        return f"middle square, {how}"
    return how if protocol.resize == "squash" else f"{how}, {config['crop_mode']} crop of {config['crop_pct']:g}"

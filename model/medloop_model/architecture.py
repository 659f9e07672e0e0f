"""What a BiTMedViT is made of: every number needed to build it, and nothing learned."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

from medloop_model.errors import UnsupportedArchitecture

_FEWEST_TOKENS_A_SIDE = 4
_MOST_TOKENS_A_SIDE = 8


@dataclass(frozen=True)
class Architecture:
    """Measures of one BiTMedViT.

    Args:
        image_size: side of the square image, pixels.
        channels: 1 (grey) or 3 (colour).
        patch_size: side of a square patch, pixels; divides image_size.
        width: embedding size d.
        depth: transformer blocks.
        heads: query heads; keys and values have one head for all (multi-query attention).
        mlp_ratio: hidden size of the MLP in units of width.
        classes: name of each output, in order.
        ternary_attention: whether qkv and out are ternary too, or only the MLP.
        ternary_patch, ternary_position, ternary_head: whether the weights of the patch embedding, the
            positions and the head are. Their inputs stay in full precision; each row has a scale.
        ternary_norms: whether the norms' factors are, one scale a norm.
        quantized: False for the full-precision teacher of the same shape.

    Raises:
        UnsupportedArchitecture: the measures don't fit together.
    """

    image_size: int
    channels: int
    patch_size: int
    width: int
    depth: int
    heads: int
    mlp_ratio: int
    classes: tuple[str, ...]
    ternary_attention: bool = True
    ternary_patch: bool = False
    ternary_position: bool = False
    ternary_head: bool = False
    ternary_norms: bool = False
    quantized: bool = True

    def __post_init__(self) -> None:
        sizes = (self.image_size, self.patch_size, self.width, self.depth, self.heads, self.mlp_ratio)
        if any(type(size) is not int for size in (*sizes, self.channels)):
            raise UnsupportedArchitecture(f"every measure must be a whole number, got {self}")
        if min(sizes) < 1:
            raise UnsupportedArchitecture(f"every measure must be at least 1, got {self}")
        if self.channels not in {1, 3}:
            raise UnsupportedArchitecture(f"images have 1 or 3 channels, not {self.channels}")
        if self.image_size % self.patch_size:
            raise UnsupportedArchitecture(
                f"patch_size {self.patch_size} must divide image_size {self.image_size}"
            )
        if self.width % self.heads:
            raise UnsupportedArchitecture(f"heads {self.heads} must divide width {self.width}")
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            raise UnsupportedArchitecture(f"two or more different class names are needed, got {self.classes}")

    @property
    def head_width(self) -> int:
        """Size of one attention head."""
        return self.width // self.heads

    @property
    def tokens(self) -> int:
        """Patches an image."""
        return (self.image_size // self.patch_size) ** 2

    def with_classes(self, classes: tuple[str, ...]) -> Architecture:
        """The same network with other outputs."""
        return replace(self, classes=classes)

    def all_ternary(self) -> Architecture:
        """The same network with every weight ternary (the idea of FTerViT, arXiv 2605.21171).

        Scales and biases stay in full precision: one number an output.
        """
        return replace(
            self,
            ternary_attention=True,
            ternary_patch=True,
            ternary_position=True,
            ternary_head=True,
            ternary_norms=True,
        )

    def full_precision(self) -> Architecture:
        """The teacher's architecture: same shape, nothing quantised."""
        return replace(self, quantized=False)

    def to_json(self) -> str:
        """One line of JSON with sorted keys."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Architecture:
        """Inverse of `to_json`.

        Raises:
            UnsupportedArchitecture: not JSON, a field missing, unknown or out of range.
        """
        try:
            fields = json.loads(text)
            return cls(**{**fields, "classes": tuple(fields["classes"])})
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UnsupportedArchitecture(f"not an architecture: {text!r} ({error})") from error


def ward(image_size: int, channels: int, classes: tuple[str, ...]) -> Architecture:
    """The small network for one ward's device: 49 to 64 tokens (patch 4 at 28 px, 8 at 64 px), d 96.

    Raises:
        UnsupportedArchitecture: no patch size divides the image into 4 to 8 patches a side.
    """
    sides = range(_MOST_TOKENS_A_SIDE, _FEWEST_TOKENS_A_SIDE - 1, -1)
    side = next((side for side in sides if image_size % side == 0), None)
    if side is None:
        raise UnsupportedArchitecture(f"resize the images: {image_size} px can't be cut into 4 to 8 patches")
    return Architecture(
        image_size=image_size,
        channels=channels,
        patch_size=image_size // side,
        width=96,
        depth=4,
        heads=3,
        mlp_ratio=2,
        classes=classes,
    )


def paper(channels: int, classes: tuple[str, ...]) -> Architecture:
    """BiTMedViT as published (arXiv 2510.13760): 224 px, 1,024 tokens, d 512, ternary in the MLPs."""
    return Architecture(
        image_size=224,
        channels=channels,
        patch_size=7,
        width=512,
        depth=3,
        heads=8,
        mlp_ratio=4,
        classes=classes,
        ternary_attention=False,
    )

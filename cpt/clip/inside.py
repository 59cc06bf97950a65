"""What the inside of an image tower offers to methods, and what they ask of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cpt.errors import CptError

Needs = Literal["nothing", "blocks", "class token"]
"""``blocks`` to put prompts or adapters into, or also a ``class token`` in them from which prompts are made."""


@dataclass(frozen=True)
class Inside:
    """An image tower as seen by methods that change it.

    Attributes:
        name: for messages.
        blocks: prompts and adapters can go into its blocks.
        class_token: one token stands for the image in every block.
    """

    name: str
    blocks: bool = True
    class_token: bool = True

    def require(self, method: str, needs: Needs) -> None:
        """Refuse a method that needs what the tower does not have.

        Raises:
            CptError: names the method and the tower.
        """
        leave = f"leave {method} out, or choose"
        if needs != "nothing" and not self.blocks:
            raise CptError(
                f"method {method}: puts prompts or adapters into the image tower's blocks, and {self.name} has none "
                f"that take them; {leave} a ViT (docs/backbones.md)"
            )
        if needs == "class token" and not self.class_token:
            raise CptError(
                f"method {method}: makes prompts from class tokens, and the image tower {self.name} has none; "
                f"{leave} a ViT with a class token (docs/backbones.md)"
            )

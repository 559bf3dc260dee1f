"""The form of a task's head on an encoder, free of any outside format."""

from dataclasses import dataclass
from typing import Any

from jaxplm.config import choices


@dataclass(frozen=True)
class HeadConfig:
    """Kind and form of a task's head.

    A ValueError says that a combination does not exist; what a user types is checked before it comes here.
    """

    kind: str  # a name for messages and files; what the head computes follows from the fields below
    classes: int  # C, the width of its output
    pooling: str = "cls"  # cls, mean, max: a unit's vector, from its tokens'; of heads that pool
    layers: str = "last"  # last, last4 (the mean of the last four blocks), mix (a learned mix of all; Peters et al. 2018)
    body: str = ""  # lstm or transformer between the vectors of tokens and the output; empty: nothing
    body_width: int = 256  # lstm: units of each direction; transformer: feed-forward width
    dropout: float | None = None  # None: the encoder's
    per_token: bool = False  # logits for every token; False: for every unit, from one vector that is pooled from its tokens
    token_dropout: bool = True  # whether a head that looks at every token has dropout

    def __post_init__(self) -> None:
        for name in ("pooling", "layers", "body"):
            allowed = choices(f"task.{name}")
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} {getattr(self, name)!r} is none of {', '.join(allowed)}")
        if self.classes < 1:
            raise ValueError(f"{self.kind} with {self.classes} outputs")
        if self.pooling != "cls" and self.per_token:
            raise ValueError(f"{self.kind} looks at every token: pooling {self.pooling!r} has no meaning")
        if self.body and not self.per_token:
            raise ValueError(f"{self.kind} pools each text: a body reads the vectors of tokens")

    def as_dict(self) -> dict[str, Any]:
        """Return what files say of a head: the fields that do not follow from its kind."""
        return {name: getattr(self, name) for name in ("kind", "classes", "pooling", "layers", "body", "body_width", "dropout")}

    @property
    def pooled(self) -> bool:
        """Whether there is one vector per unit, and not one per token."""
        return not self.per_token

    @property
    def hf_native(self) -> bool:
        """Whether a head of transformers can have this form."""
        return self.pooling == "cls" and self.layers == "last" and not self.body

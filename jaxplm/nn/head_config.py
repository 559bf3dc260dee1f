"""The shape of what stands on an encoder for a task, free of any outside format."""

from dataclasses import dataclass

from jaxplm.config import choices

POOLED = ("classify", "multilabel", "regress")  # one vector a unit
TOKENWISE = ("tag", "qa")  # one vector a token


@dataclass(frozen=True)
class HeadConfig:
    """Kind and form of a task's head.

    A ValueError says that a combination does not exist; what a user types is looked at before it comes here.
    """

    kind: str  # classify, multilabel, regress, tag, qa
    classes: int  # C: 1 for regress, 2 for qa (start and end)
    pooling: str = "cls"  # cls, mean, max: a unit's vector, from its tokens'; of the pooled kinds
    layers: str = "last"  # last, last4 (the mean of the last four blocks), mix (a learned mix of all; Peters et al. 2018)
    body: str = ""  # tag only: lstm or transformer between the vectors and the output; empty: nothing
    body_width: int = 256  # lstm: units of each direction; transformer: feed-forward width
    dropout: float | None = None  # None: the encoder's

    def __post_init__(self) -> None:
        allowed_values = {"kind": (*POOLED, *TOKENWISE)} | {name: choices(f"task.{name}") for name in ("pooling", "layers", "body")}
        for name, allowed in allowed_values.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} {getattr(self, name)!r} is none of {', '.join(allowed)}")
        least, most = {"classify": (2, None), "regress": (1, 1), "qa": (2, 2)}.get(self.kind, (1, None))
        if self.classes < least or (most is not None and self.classes > most):
            raise ValueError(f"{self.kind} with {self.classes} classes")
        if self.pooling != "cls" and not self.pooled:
            raise ValueError(f"{self.kind} looks at every token: pooling {self.pooling!r} has no meaning")
        if self.body and self.kind != "tag":
            raise ValueError(f"a body is for tag, not for {self.kind}")

    @property
    def pooled(self) -> bool:
        """Whether there is one vector a unit, and not one a token."""
        return self.kind in POOLED

    @property
    def stock(self) -> bool:
        """Whether transformers has this very head."""
        return self.pooling == "cls" and self.layers == "last" and not self.body

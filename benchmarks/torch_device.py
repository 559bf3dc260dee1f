"""Where the PyTorch contestants compute: on the NVIDIA GPU if this machine has one, else on the CPU."""

import contextlib
import time
from typing import Any

import numpy as np
import torch
from workers import on_gpu


class TorchDevice:
    """The device of a PyTorch contestant.

    Attributes:
      name: "cuda" or "cpu".
      is_gpu: whether its calls return before their work is done.
    """

    def __init__(self) -> None:
        self.is_gpu = on_gpu()
        self.name = "cuda" if self.is_gpu else "cpu"
        if self.is_gpu and not torch.cuda.is_available():
            raise SystemExit(f"this machine has an NVIDIA GPU, but this PyTorch cannot use it (torch {torch.__version__})")
        if self.is_gpu:
            torch.set_float32_matmul_precision("high")  # TF32, as JAX computes products of float32 there

    def autocast(self, dtype: str) -> contextlib.AbstractContextManager[Any]:
        """Return the context in which products are computed in bfloat16, or nothing changes."""
        return torch.autocast(self.name, torch.bfloat16, enabled=dtype == "bfloat16")

    def host(self, array: np.ndarray) -> torch.Tensor:
        """Return the array as a tensor, in memory from which a GPU copies while it computes."""
        tensor = torch.from_numpy(array)
        return tensor.pin_memory() if self.is_gpu else tensor

    def put(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor of `host` on the device; a GPU's copy is enqueued."""
        return tensor.to(self.name, non_blocking=True)

    def now(self) -> float:
        """Return the clock's time after all work that was enqueued."""
        if self.is_gpu:
            torch.cuda.synchronize()
        return time.perf_counter()

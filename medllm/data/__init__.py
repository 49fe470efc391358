"""From a `Radiograph` to a model's input, with the way back."""

from medllm.data.preprocessing import Preprocessing

__all__ = ["Preprocessing"]

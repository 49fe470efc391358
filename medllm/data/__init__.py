"""From a `Radiograph` to a model's input, with the way back; and the regions of the chest."""

from medllm.data.preprocessing import Preprocessing

__all__ = ["Preprocessing"]

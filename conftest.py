"""Libraries that are imported before medllm is.

While a module of medllm is imported, jaxtyping looks for the byte code of all others, too, under a
name of its own. It would compile all of torch, transformers and MONAI anew.
"""

from tests.nursery import import_libraries

import_libraries()

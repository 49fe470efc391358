"""Chat templates in the manner of the families: roles, image markers, generation prompts."""

from __future__ import annotations

_PLAIN = """\
{%- for message in messages -%}
{{ START }}
{%- if message.content is string -%}{{ message.content }}{%- else -%}
{%- for part in message.content -%}
{%- if part.type == "image" -%}{{ IMAGE }}{%- elif part.type == "text" -%}{{ TEXT }}{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{ END }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ GENERATION }}{%- endif -%}
"""


def _template(
    *, first: str = "", start: str, image: str, text: str = "part.text", end: str, generation: str
) -> str:
    """Fill the expressions of one family into the loop over messages and their parts."""
    filled = _PLAIN
    for name, expression in {
        "START": start,
        "IMAGE": image,
        "TEXT": text,
        "END": end,
        "GENERATION": generation,
    }.items():
        filled = filled.replace(f"{{{{ {name} }}}}", f"{{{{ {expression} }}}}")
    return first + filled


VICUNA = _template(
    start="message.role | upper + ': '",
    image=r"'<image>\n'",
    end="' ' if message.role == 'user' else eos_token",
    generation="'ASSISTANT:'",
)
VICUNA_WITH_BOS = "{{- bos_token -}}\n" + VICUNA

MISTRAL = _template(
    start="'[INST] ' if message.role == 'user' else ' '",
    image=r"'<image>\n'",
    end="' [/INST]' if message.role == 'user' else eos_token",
    generation="''",
)

GEMMA = _template(
    first="{{- bos_token -}}\n",
    start=r"'<start_of_turn>' + ('model' if message.role == 'assistant' else message.role) + '\n'",
    image="'<start_of_image>'",
    text="part.text | trim",
    end=r"'<end_of_turn>\n'",
    generation=r"'<start_of_turn>model\n'",
)

_CHATML = {
    "start": r"'<|im_start|>' + message.role + '\n'",
    "end": r"'<|im_end|>\n'",
    "generation": r"'<|im_start|>assistant\n'",
}
LLAVA_QWEN = _template(image=r"'<image>\n'", **_CHATML)
INTERNVL = _template(image=r"'<IMG_CONTEXT>\n'", **_CHATML)
QWEN3_VL = _template(image="'<|vision_start|><|image_pad|><|vision_end|>'", **_CHATML)
# The earlier ones speak for the system where the messages do not.
QWEN2_VL = (
    "{%- if messages[0].role != 'system' -%}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{%- endif -%}\n"
    + QWEN3_VL
)

_IDEFICS = {
    "start": "message.role | capitalize + (':' if message.content[0].type == 'image' else ': ')",
    "image": "'<image>'",
    "end": r"'<end_of_utterance>\n'",
    "generation": "'Assistant:'",
}
IDEFICS3 = _template(first="{{- '<|begin_of_text|>' -}}\n", **_IDEFICS)
SMOLVLM = _template(first="{{- '<|im_start|>' -}}\n", **_IDEFICS)

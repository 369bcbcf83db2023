"""What the embedded model's world has, by name: colours, backgrounds, shapes, motions, and the words that captions have for them.

Plain Python, without tensors. `asked_for` reads a prompt; `model_core.quality.detect` reads frames.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

DETECTOR = "millrace-64"  # the model whose world this is
SIZE = 64  # pixels, of both sides
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (228, 40, 44), "orange": (250, 140, 20), "yellow": (250, 228, 50), "green": (52, 190, 76),
    "blue": (56, 104, 240), "purple": (152, 64, 208), "pink": (252, 140, 200), "white": (248, 248, 248),
}  # fmt: skip
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "black": (14, 14, 18), "gray": (112, 112, 118), "navy": (22, 30, 92), "dark green": (14, 74, 44),
    "brown": (92, 56, 32), "cream": (238, 226, 190), "sky blue": (150, 205, 240), "maroon": (84, 16, 36),
}  # fmt: skip
SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")
MOTIONS = ("right", "left", "up", "down", "still", "circling")
SPEEDS = (0.7, 1.2, 2.0)  # pixels a frame: slowly, unsaid, quickly
RADII = (9.5, 12.0, 14.5)  # pixels: small, unsaid, large
ORBIT = 12.0  # radius of "circling" in pixels

COLOUR_WORDS = {
    "red": ("red", "red", "scarlet", "crimson"), "orange": ("orange", "orange", "tangerine"), "yellow": ("yellow", "yellow", "golden"),
    "green": ("green", "green", "emerald"), "blue": ("blue", "blue", "azure"), "purple": ("purple", "purple", "violet"),
    "pink": ("pink", "pink", "rose"), "white": ("white", "white", "snow white"),
}  # fmt: skip
BACKGROUND_WORDS = {
    "black": ("black", "black", "pitch black"), "gray": ("gray", "gray", "grey"), "navy": ("navy", "dark blue", "navy blue"),
    "dark green": ("dark green", "dark green", "forest green"), "brown": ("brown", "brown", "dark brown"),
    "cream": ("cream", "cream", "beige"), "sky blue": ("sky blue", "light blue", "sky"), "maroon": ("maroon", "dark red", "maroon"),
}  # fmt: skip
SHAPE_WORDS = {
    "circle": ("circle", "circle", "ball", "disc", "dot"), "square": ("square", "square", "box", "block"),
    "triangle": ("triangle", "triangle", "pyramid"), "star": ("star", "star"), "ring": ("ring", "ring", "donut", "hoop"),
    "cross": ("cross", "cross", "plus sign"),
}  # fmt: skip
MOTION_WORDS = {
    "right": ("moving right", "moving to the right", "sliding right", "drifting to the right", "flying right"),
    "left": ("moving left", "moving to the left", "sliding left", "drifting to the left", "flying left"),
    "up": ("moving up", "rising", "floating upwards", "going up", "climbing"),
    "down": ("moving down", "falling", "sinking", "going down", "dropping"),
    "still": ("standing still", "not moving", "at rest", "staying in place"),
    "circling": ("circling", "moving in circles", "orbiting", "going round and round"),
}

# An attribute's values, and all words for each.
_ATTRIBUTES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "background": BACKGROUND_WORDS, "colour": COLOUR_WORDS, "shape": SHAPE_WORDS, "motion": MOTION_WORDS,
}  # fmt: skip
_PLACES = ("background", "backdrop")


def asked_for(prompt: str) -> dict[str, int]:
    """The attributes that a prompt names, as indices into the tables above; one that it names twice and differently is left out.

    The keys are among `background`, `colour`, `shape` and `motion`.
    """
    meanings = {
        word: (attribute, index)
        for attribute, values in _ATTRIBUTES.items()
        for index, words in enumerate(values.values())
        for word in words
    }
    # A background of a colour that no background has is none that could be looked for, and no colour of the shape either.
    elsewhere = [f"{colour} {place}" for words in COLOUR_WORDS.values() for colour in words for place in _PLACES]
    longest_first = sorted({*meanings, *elsewhere}, key=lambda phrase: (-len(phrase), phrase))
    text = " ".join(re.findall(r"[a-z]+", prompt.lower()))
    found: dict[str, set[int]] = {}
    for match in re.finditer(rf"\b(?:{'|'.join(longest_first)})\b", text):
        if (meaning := meanings.get(match.group())) is not None:
            found.setdefault(meaning[0], set()).add(meaning[1])
    return {attribute: indices.pop() for attribute, indices in found.items() if len(indices) == 1}

"""Texts that the examples of the rules for secrets stand for (``douane.detect.rule``): no file holds what looks like a
key."""

import random
import re
import string

__all__ = ["CLASSES", "built"]

CLASSES = {
    "A": string.ascii_letters + string.digits, "W": string.ascii_letters + string.digits + "_-",
    "L": string.ascii_lowercase + string.digits, "U": string.ascii_uppercase + "234567", "H": "0123456789abcdef",
    "D": string.digits, "N": string.ascii_lowercase + "234567",
    "B": string.ascii_letters + string.digits + "+/", "X": "x", "G": "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L"}


def built(template: str, seed: int = 1) -> str:
    """The text that *template* stands for (see ``secret_rules``)."""
    chance = random.Random(f"{seed} {template}")

    def drawn(match: re.Match[str]) -> str:
        letters, count = CLASSES[match[1]], int(match[2])
        made = chance.choices(letters, k=count) if count > len(letters) else chance.sample(letters, count)
        if match[1] in "AWLUH" and count > 3:  # one without a letter or a digit is possible, and rare
            made[1:3] = "4A" if match[1] in "AWU" else "4a"
        return "".join(made)

    return re.sub(r"\{([A-Z])([0-9]+)\}", drawn, template)

"""What the demo's app asks. Beside the app, so that it can be read where no SDK is installed.

Law: no two questions are equal, and whoever they speak of is made up.
"""

from collections.abc import Mapping
from typing import Any

__all__ = ["DEAR", "FORBIDDEN", "FORM", "FORM_VALUES", "LETTER", "PAGES", "PERSONAL", "QUESTIONS", "REFUND"]

_NAME, _EMAIL, _PHONE, _CARD = "Ada Lovelace", "ada.lovelace@example.com", "+1 415 555 0132", "4111 1111 1111 1111"
PERSONAL: Mapping[str, str] = {_NAME: "PERSON", _EMAIL: "EMAIL_ADDRESS", _PHONE: "PHONE_NUMBER", _CARD: "CREDIT_CARD"}
"""Value → the type by which it is found. It may not leave as it is."""
FORM_VALUES: Mapping[str, str] = {"email": _EMAIL, "phone": _PHONE, "card": _CARD}
FORM = "Refund order 7731. " + ", ".join(f"{name}: {value}" for name, value in FORM_VALUES.items())
REFUND: Any = {"type": "function", "function": {"name": "refund", "parameters": {
    "type": "object", "properties": {name: {"type": "string"} for name in FORM_VALUES}}}}
"""The tool that is offered with :data:`FORM`."""
LETTER = f"{_NAME} ({_EMAIL}) asks where her refund is. Draft a reply."
_GOODS = ("pepper", "cloves", "nutmeg", "saffron", "indigo", "tea", "silk", "amber", "cork", "salt", "copper", "wool")
PAGES = tuple(f"Summarise page {page} of the tariff. " + " ".join(
    f"On {good}, by the hundredweight, class {page}: a duty of {page + at} shillings, a third of it given back when it "
    "leaves again." for at, good in enumerate(_GOODS)) for page in range(1, 7))
"""Long ones, for a dear model: asked one after another until the money is used up."""
DEAR = "Now all of it as a poem, please."
FORBIDDEN = "May I use the big model?"
QUESTIONS = (FORM, LETTER, *PAGES, DEAR, FORBIDDEN)
"""In the order in which they are asked."""

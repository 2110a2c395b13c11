"""What the demo's app asks. Beside the app, so that it can be read where no SDK is installed."""

__all__ = ["FORBIDDEN", "QUESTIONS"]

QUESTIONS = ("What does a customs house do?", "Count the parcels of today.", "May I use the big model?",
             "Summarise the treaty in a word.", "And now as a poem, please.")
"""In the order in which they are asked. No two are equal, so that a body tells its call."""
FORBIDDEN = "gpt-5"
"""The model that the demo's policy does not allow; the third question goes to it."""

"""What one model asks for each kind of thing that a call uses.

Law 6: a price that is not known is None, never zero. What has no price of its own costs what its whole costs: cached input
what input costs, reasoning what output costs, audio and pictures what text costs.
"""

from dataclasses import dataclass, fields, replace

from douane.call import Usage

__all__ = ["Rates"]


@dataclass(frozen=True, slots=True)
class Rates:
    """USD per million tokens and characters, per thousand searches, pages and requests, per hour of audio; None: no price of
    its own. The fields but ``reasoning`` are the schema of a price in ``prices:``."""

    input: float | None = None
    output: float | None = None
    cached_input: float | None = None
    cache_write: float | None = None
    cache_write_1h: float | None = None
    web_search: float | None = None
    reasoning: float | None = None
    request: float = 0.0
    input_audio: float | None = None
    cached_audio: float | None = None
    output_audio: float | None = None
    input_image: float | None = None
    cached_image: float | None = None
    output_image: float | None = None
    file_search: float | None = None
    audio_hour: float | None = None
    characters: float | None = None
    page: float | None = None

    def cost(self, usage: Usage) -> float | None:
        """None where *usage* has something without a price. Parts that exceed their whole cost what they say."""
        total = self.request * 1000
        if usage.input or usage.cached_input or usage.cache_write:
            if self.input is None:
                return None
            total += self._given(usage, self.input)
        if usage.output:
            if self.output is None:
                return None
            total += self._made(usage, self.output)
        if usage.web_searches or usage.file_searches or usage.audio_seconds or usage.characters or usage.pages:
            for count, price in ((usage.web_searches * 1000, self.web_search), (usage.file_searches * 1000, self.file_search),
                                 (usage.audio_seconds / 0.0036, self.audio_hour), (usage.characters, self.characters),
                                 (usage.pages * 1000, self.page)):
                if count:
                    if price is None:
                        return None
                    total += count * price
        return total / 1_000_000

    def _given(self, usage: Usage, price: float) -> float:
        cached, written, hour = usage.cached_input, usage.cache_write, usage.cache_write_1h
        rest, total = usage.input - cached - written, 0.0
        if usage.input_audio or usage.input_image:  # of each: what was cached at its own price, then what was not
            for of, kept, fresh_price, stored in (
                    (usage.input_audio, usage.cached_audio, self.input_audio, self.cached_audio),
                    (usage.input_image, usage.cached_image, self.input_image, self.cached_image)):
                kept_price = fresh_price if stored is None and self.cached_input is None else stored
                if kept_price is not None:
                    total += kept * kept_price
                    cached -= kept
                if fresh_price is not None:
                    total += (of - kept) * fresh_price
                    rest -= of - kept
        total += max(rest, 0) * price
        if cached > 0:
            total += cached * (price if self.cached_input is None else self.cached_input)
        if written:
            store = price if self.cache_write is None else self.cache_write
            total += max(written - hour, 0) * store + hour * (store if self.cache_write_1h is None else self.cache_write_1h)
        return total

    def _made(self, usage: Usage, price: float) -> float:
        rest, total = usage.output, 0.0
        for part, own in ((usage.reasoning, self.reasoning), (usage.output_audio, self.output_audio),
                          (usage.output_image, self.output_image)):
            if part and own is not None:
                rest -= part
                total += part * own
        return total + max(rest, 0) * price

    def at_most(self, given: int, made: int) -> float | None:
        """USD of *given* input and *made* output tokens, each at the highest price that some of them may have."""
        if self.input is None or (made and self.output is None):
            return None
        dearest_in = max(self.input, self.cached_input or 0.0, self.cache_write or 0.0, self.cache_write_1h or 0.0,
                         self.input_audio or 0.0, self.input_image or 0.0)
        dearest_out = max(self.output or 0.0, self.reasoning or 0.0, self.output_audio or 0.0, self.output_image or 0.0)
        return (self.request * 1000 + given * dearest_in + made * dearest_out) / 1_000_000

    def times(self, factor: float) -> "Rates":
        """Every price, *factor* times."""
        if factor == 1:
            return self
        return replace(self, **{one.name: price * factor for one in fields(self)
                                if (price := getattr(self, one.name)) is not None})

    def filled(self, ceiling: "Rates") -> "Rates":
        """With the prices of *ceiling* where this has none and what it is part of has none either."""
        return replace(self, **{name: getattr(ceiling, name) for name in _WHOLES if getattr(self, name) is None})


_WHOLES = ("input", "output", "web_search", "file_search", "audio_hour", "characters", "page")

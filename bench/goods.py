"""Texts for the scanner: chat, code and log lines with made-up people's data in them, the same for the same seed."""

import random
import re
import string

__all__ = ["IDENTIFIERS", "card", "code", "dense", "iban", "mixed", "phone", "prose", "text"]

_WORDS = re.findall(r"\w+", "the customer asked whether her order could be moved to next week because of a storm "
                    "and we said that it depends on what is in stock at our warehouse please check again "
                    "and tell me when you know more about this account")
_PEOPLE = re.findall(r"\w+", "anna boris chloe dmitri elena farid grace hugo ines jonas kenji lucia marta nils olga pavel")
_SITES = ("example.com", "mail.example.org", "uni-ulm.de", "company.co.uk", "correo.es", "firma.pl", "xn--80ak6aa92e.com",
          "not-a-suffix.qqq")


def _digits(rng: random.Random, shape: str) -> str:
    return "".join(str(rng.randrange(10)) if sign == "#" else sign for sign in shape)


def _luhn(body: str) -> str:
    total = sum(sum(divmod(int(sign) * (2 - at % 2), 10)) for at, sign in enumerate(reversed(body)))
    return body + str(-total % 10)


def card(rng: random.Random) -> str:
    number = _luhn(_digits(rng, rng.choice(("4##############", "51#############", "34############", "6011###########"))))
    gap = rng.choice(("", "", " ", "-"))
    return gap.join(number[at:at + 4] for at in range(0, len(number), 4))


def iban(rng: random.Random) -> str:
    country, shape = rng.choice((("DE", "#" * 18), ("GB", "WEST" + "#" * 14), ("FR", "#" * 23), ("NL", "ABNA" + "#" * 10),
                                 ("MT", "MALT" + "#" * 5 + "MTLCAST" + "#" * 3 + "S" + "#" * 7)))
    body = _digits(rng, shape)
    value = int("".join(str(int(sign, 36)) for sign in f"{body}{country}00"))
    number = f"{country}{98 - value % 97:02}{body}"
    return rng.choice((number, " ".join(number[at:at + 4] for at in range(0, len(number), 4))))


def _email(rng: random.Random) -> str:
    name = rng.choice(("", ".", "_", "+")).join(rng.sample(_PEOPLE, 2))
    return f"{name}{rng.randrange(99)}@{rng.choice(_SITES)}"


def phone(rng: random.Random) -> str:
    return _digits(rng, rng.choice(("(212) 555-01##", "+1 415-###-####", "415.###.####", "+44 20 7### ####", "+49 30 ########",
                                    "030 ########", "+33 6 ## ## ## ##", "06 ## ## ## ##", "+91 98### #####", "054-#######",
                                    "650-253-#### ext. ###", "+55 11 9####-####", "07### ######")))


def _national(rng: random.Random) -> str:
    letter = rng.choice(string.ascii_uppercase)
    return _digits(rng, rng.choice((
        "###-##-####", "536-22-####", "### ### ####", "########" + letter, "X#######" + letter, "#" * 11, "8#0#1######",
        "#" * 13, "1#05##-###" + letter, "#### #### ####", "RSSMRA85T10A562S", "12345678Z", "44051401359", "943 476 5919",
        "131052-308T", "85777003593", "234123412346", "900101-1######", "15070649C103")))


def _address(rng: random.Random) -> str:
    v4 = ".".join(str(rng.randrange(270)) for _ in range(4))
    return rng.choice((v4, f"{v4}/24", "fe80::1ff:fe23:4567:890a", "2001:db8:0:1:1:1:1:1", "::1", f"::ffff:{v4}", "a::b"))


def _crypto(rng: random.Random) -> str:
    return rng.choice(("1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", "3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy",
                       "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq", "1" + "".join(rng.choices("abcdefgh2345678", k=33))))


IDENTIFIERS = (card, iban, _email, phone, _national, _address, _crypto)


def _day(rng: random.Random) -> str:
    return f"2026-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02}"


def _noise(rng: random.Random) -> str:
    return rng.choice((
        _day(rng) + _digits(rng, " 1#:2#:3#"), _digits(rng, "v#.##.#"), _digits(rng, "17########"), f"{rng.random():.6f}",
        f"{rng.getrandbits(160):040x}", f"arr[{rng.randrange(99)}]", "std::vector<int>", "https://example.com/a?b=1&c=2",
        "@decorator", "$ 1,234.50", _digits(rng, "(## %)"), "1, 2, 3, 4, 5, 6, 7, 8", "٣٤٥", "self.com", "#42", "x = y"))


def text(rng: random.Random, words: int, *, found: float = 0.1, noise: float = 0.1) -> str:
    """So many words, of which these shares are identifiers and things that only look like some."""
    parts = []
    for _ in range(words):
        dice = rng.random()
        one = rng.choice(IDENTIFIERS)(rng) if dice < found else _noise(rng) if dice < found + noise else rng.choice(_WORDS)
        parts.append(rng.choice((one, one, one, f"({one})", f"{one}.", f'"{one}"', f"a={one},", f"{one}\n")))
    return rng.choice((" ", " ", " ", "  ", "\t")).join(parts)


def _sized(rng: random.Random, size: int, found: float, noise: float) -> str:
    return text(rng, size // 3, found=found, noise=noise)[:size]


def prose(rng: random.Random, size: int) -> str:
    """Chat: two identifiers and a number or so in 1.5 KB."""
    return _sized(rng, size, 0.006, 0.01)


def dense(rng: random.Random, size: int) -> str:
    """Little but identifiers."""
    return _sized(rng, size, 0.2, 0.1)


def code(rng: random.Random, size: int) -> str:
    """Source: numbers and addresses of things, hardly anybody's."""
    lines, length = [], 0
    while length < size:
        lines.append("    " * rng.randrange(4) + rng.choice((
            f"{rng.choice(_WORDS)} = {rng.choice(_WORDS)}.{rng.choice(_WORDS)}({rng.randrange(999)})",
            f"def {rng.choice(_WORDS)}_{rng.choice(_WORDS)}(self, {rng.choice(_WORDS)}: int = {rng.randrange(9)}) -> None:",
            f"return self.{rng.choice(_WORDS)}[{rng.randrange(9)}]", f"# {' '.join(rng.choices(_WORDS, k=8))}",
            f"if {rng.choice(_WORDS)} is None:", f"{rng.choice(_WORDS)} = {_noise(rng)!r}")))
        length += len(lines[-1]) + 1
    return "\n".join(lines)[:size]


def mixed(rng: random.Random, size: int) -> str:
    """A third each of chat, code and log lines."""
    third = size // 3
    log: list[str] = []
    while sum(len(line) for line in log) < third:
        said = " ".join(rng.choices(_WORDS, k=6))
        log.append(f"{_day(rng)}{_digits(rng, 'T1#:2#:3#Z')} INFO {said} id={rng.randrange(9999)}\n")
    return prose(rng, third) + "\n" + code(rng, third) + "\n" + "".join(log)[:size - 2 * third - 2]

"""Texts in which people are named, and where: what the recognizer of names is measured on, and never tuned on.

The names are written down here, of many countries, whatever the recognizer's lists have of them; so are the sentences, and the
words in them that look like names and are none."""

import random
from collections.abc import Iterator

__all__ = ["Labelled", "labelled"]

type Labelled = tuple[str, tuple[tuple[int, int], ...]]
"""A text, and where people are named in it."""

_GIVEN = (
    "Ann", "Sarah", "Mohammed", "Priya", "Wei", "Yuki", "Oluwaseun", "Ingrid", "Matteo", "Kateryna", "Jean-Luc",
    "Siobhan", "Ravi", "Chloe", "Dmitri", "Fatima", "Carlos", "Hye-jin", "Thabo", "Leila", "Tom", "Margaret", "Aoife",
    "Nikhil", "Zeynep", "Piotr", "Elena", "Joaquin", "Mei", "Samuel", "Grace", "Will", "Mark", "Jordan", "Rose", "Hope",
    "Dean", "Amina", "Tunde", "Bjorn", "Anneke", "Giulia", "Rohan", "Emma", "Liam", "Noah", "Olivia", "Ethan", "Mia",
    "Lucas", "Isabella", "Vikram", "Ayesha", "Hassan", "Deborah", "Keith", "Joan", "Doug", "Trevor")
_FAMILY = (
    "Lee", "Connor", "Rahman", "Nair", "Chen", "Tanaka", "Adeyemi", "Lindqvist", "Ferrari", "Shevchenko", "Moreau",
    "O'Brien", "Kumar", "Dubois", "Ivanov", "al-Rashid", "Mendez", "Park", "Mokoena", "Haddad", "Baker", "Whitfield",
    "Gallagher", "Deshpande", "Yilmaz", "Kowalczyk", "Petrova", "Ibarra", "Zhang", "Osei", "Hopper", "Smith", "Jones",
    "Miller", "Byrne", "Carter", "Hossain", "Okonkwo", "Sorensen", "Janssen", "Esposito", "Mehta", "Thompson", "Walsh",
    "Nguyen", "Hernandez", "Silva", "Gomez", "Novak", "Horvath", "Popescu", "Nakamura", "Abernathy", "Fitzgerald",
    "McAllister", "MacDonald", "Vandenberg", "Khatri", "Bhattacharya", "Goldstein")
_PARTICLE = ("van der Berg", "de la Cruz", "von Trapp", "van Dijk", "di Stefano", "dos Santos")
_FULL = (
    "My name is {} and I need to change the billing address on my account.",
    "Please draft a reply to {} about the delayed parcel.", "I spoke with {} from support on Tuesday, who promised a refund.",
    "Summarise the call between {} and {} in three bullet points.", "The patient, {}, was admitted in March with chest pain.",
    "From: {}\nSubject: invoice for May", "{} wrote the first draft; {} reviewed it.",
    "Can you ask Dr. {} whether the results are back?", "Is {}'s contract up for renewal in June?",
    "Meeting notes\n- {}: ship the API\n- {}: fix login", "According to {}, the Paris office closes in August.",
    "Dear Mr. {},\n\nthank you for your order.", "Kind regards,\n{}", "write a birthday poem for my wife {}",
    "Assign the ticket to {} please", "CV of {}: ten years of Java at Oracle in Austin",
    "Translate to French: \"{} will visit the Berlin team.\"", '{{"customer_name": "{}", "status": "open"}}',
    "Our new hire {} starts on Monday.", "who is {} and why did she call?",
    "The contract between {} and Apple ends in April.", "Cc {} and {} on this.",
    "{}, my neighbour, said that the Amazon driver left it.", "I owe {} 40 dollars.")
_FIRST = (
    "Hi {}, thanks for the quick answer!", "Tell {} I'll be late.", "{} said the server was down again.",
    "Hey {} - can you look at this?", "my brother {} lives in Denver", "I think {} and {} should talk about it.",
    "Thanks,\n{}", "{}'s laptop needs a new battery.", "Dear {},\nhope you are well.", "Yesterday I met {} at the station.",
    "What should I get {} for Christmas?")
_NOBODY = (
    "Will it rain in May? Mark the date.", "The Apple Store in Paris opens on Monday.", "Use Jackson to parse JSON in Java.",
    "class UserFactory(BaseModel):\n    name: str = 'Martin'\n    return Victoria.build()", "Hope this helps. Best, the Team",
    "In Jordan and Chad the rainy season starts in June.", "Redis, Kafka and Jenkins run on Ubuntu.",
    "const Grace = require('grace-lib');", "San Francisco, Santa Monica and St. Louis are cities.",
    "Morgan Stanley and JP Morgan raised rates.", "Ruby on Rails vs Django: which one?",
    "Can you explain Bayes' theorem and Newton's method?", "Please review the Terms of Service. Thank You.",
    "Victoria Station is closed.", "The Great Wall, Mount Everest and Lake Victoria",
    "import numpy as np\nfrom sklearn.linear_model import Ridge", "Microsoft Azure, Google Cloud or Amazon Web Services?",
    "Model: Claude Opus, temperature 0.2", "SELECT Name FROM Customers WHERE City = 'London'",
    "Happy New Year from the Marketing Team!", "New York Times, Washington Post",
    "I drive a Mercedes and my wife a Tesla Model Three.", "A Gaussian Process with Dirichlet priors",
    "The Austin Marathon in April", "Dell Inspiron or Lenovo Yoga?", "Rose Garden tickets for Sunday", "Thanks for Your Help",
    "Error: Connection Refused at Object.Client (Main.java:20)", "What is the capital of Georgia?", "Windows Server Update",
    "Act I, Scene II: Enter Ghost", "Merry Christmas and a Happy Easter", "Chase Bank, Wells Fargo",
    "Sterling rose against the dollar on Friday.")


def _person(rng: random.Random) -> str:
    given = rng.choice(_GIVEN)
    dice = rng.random()
    if dice < 0.12:
        return f"{given} {rng.choice('ABCDEFGHJKLMRST')}. {rng.choice(_FAMILY)}"
    if dice < 0.2:
        return f"{given} {rng.choice(_PARTICLE)}"
    return f"{given} {rng.choice(_FAMILY)}"


def labelled(rng: random.Random) -> Iterator[Labelled]:
    """Without end: a third with full names, a third with given ones, a third with none."""
    while True:
        kind = rng.randrange(3)
        shape = rng.choice((_FULL, _FIRST, _NOBODY)[kind])
        text, spans = "", []
        pieces = shape.replace("{{", "\0").replace("}}", "\1").split("{}")
        for at, piece in enumerate(pieces):
            if at:
                name = _person(rng) if kind == 0 else rng.choice(_GIVEN)
                spans.append((len(text), len(text) + len(name)))
                text += name
            text += piece.replace("\0", "{").replace("\1", "}")
        yield text, tuple(spans)

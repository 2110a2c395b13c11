"""What the bench of the detectors counts, and what it reads."""

import json
from pathlib import Path

import pytest
from bench.detection import Score, overlap, score
from bench.labelled import SECRET, Text, invented, read

from douane.detect import Span


def test_half_of_the_characters_in_common_is_a_finding() -> None:
    assert overlap(("A", 0, 10), ("A", 5, 15)) == pytest.approx(1 / 3)
    assert overlap(("A", 0, 4), ("A", 4, 8)) == 0
    scores: dict[str, Score] = {}
    text = Text("x" * 40, (("PERSON", 0, 10), ("PERSON", 12, 20), ("CITY", 30, 34)))
    score(scores, text, [Span("PERSON", 0, 6, 1.0), Span("PERSON", 1, 10, 1.0), Span("EMAIL_ADDRESS", 30, 34, 1.0),
                         Span("GITHUB_TOKEN", 36, 40, 1.0)])
    assert (scores["PERSON"].labels, scores["PERSON"].found, scores["PERSON"].right) == (2, 2, 1)
    assert (scores["PERSON"].precision, scores["PERSON"].recall, scores["PERSON"].f2) == (0.5, 0.5, 0.5)
    assert (scores["CITY"].recall, scores["CITY"].precision) == (0, None)
    assert (scores["any"].labels, scores["any"].found, scores["any"].right) == (3, 4, 2)
    assert scores[SECRET].found == 1


def test_it_reads_json_and_conll(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_text(json.dumps([{"full_text": "I am Ann", "masked": "", "template_id": 1, "metadata": None, "spans": [
        {"entity_type": "PERSON", "entity_value": "Ann", "start_position": 5, "end_position": 8}]}]))
    assert read(file) == [Text("I am Ann", (("PERSON", 5, 8),))]
    file.write_text("-DOCSTART- -X- O O\n\nAnn NNP B-NP B-PER\nLee NNP I-NP I-PER\nin IN O O\nOslo NNP B-NP I-LOC\n")
    ann = Text("Ann Lee in Oslo", (("PERSON", 0, 7), ("LOCATION", 11, 15)))
    assert read(file) == [ann]
    file.write_text("# id\n1\tAnn\tB-PER\t-\t-\n2\tLee\tI-PER\t-\t-\n3\tin\tO\t-\t-\n4\tOslo\tB-LOC\t-\t-\n\n")
    assert read(file) == [ann]


def test_made_up_texts_are_the_same_for_the_same_seed_and_labelled_where_they_say() -> None:
    texts = list(invented(3, 200))
    assert texts == list(invented(3, 200))
    assert texts != list(invented(4, 200))
    kinds = {kind for text in texts for kind, _, _ in text.labels}
    assert kinds == {"EMAIL_ADDRESS", "PHONE_NUMBER", "PERSON", "CREDIT_CARD", "IBAN_CODE", "IP_ADDRESS", "US_SSN", SECRET}
    assert all("@" in text.text[start:end] for text in texts for kind, start, end in text.labels if kind == "EMAIL_ADDRESS")
    assert not any("{" + kind in text.text for text in texts for kind in kinds)

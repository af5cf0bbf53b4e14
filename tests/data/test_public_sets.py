"""The public sets by hub id: what each option makes of a row with the columns of its set. The rows are made up."""

from __future__ import annotations

from typing import Any

import pytest
from omegaconf import OmegaConf

from w2sd.cli import CONF
from w2sd.config import build
from w2sd.data.sources import Hub

ABC = ["x", "y", "z"]
ROWS: dict[
    str, tuple[dict[str, Any], dict[str, int]]
] = {  # option → row, the texts that may be shown and their classes
    "amazon_polarity": ({"label": 1, "title": "Good", "content": "It is."}, {"Good It is.": 1}),
    "anli_r2": ({"uid": "u", "premise": "p", "hypothesis": "h", "label": 1}, {"Premise: p\nHypothesis: h": 0}),
    "boolq": ({"question": "q", "answer": True, "passage": "p"}, {"Passage: p\nQuestion: q": 1}),
    "cola": ({"sentence": "s", "label": 0, "idx": 3}, {"s": 0}),
    "cosmos_qa": (
        {
            "id": "i",
            "context": "c",
            "question": "q",
            "label": 2,
            "answer0": "None of the above choices .",
            "answer1": "x",
        }
        | {"answer2": "y", "answer3": "z"},
        {f"Context: c\nQuestion: q\nAnswer: {a}": int(a == "y") for a in ABC},
    ),
    "dream": (
        {"id": 0, "dialogue_id": "d", "dialogue": ["M: a", "W: b"], "question": "q", "choice": ABC, "answer": "z"},
        {f"M: a\nW: b\n\nQ: q A: {a}": int(a == "z") for a in ABC},
    ),
    "ethics_deontology": ({"label": 1, "scenario": "Do it?", "excuse": "No, I"}, {"Do it? No, I": 1}),
    "ethics_justice": ({"label": 0, "scenario": "I do because x"}, {"I do because x": 0}),
    "ethics_utilitarianism": (
        {"baseline": "I ate. Well.", "less_pleasant": "I ate. Badly."},
        {
            "I ate. Well.\nis more pleasant than\nI ate. Badly.": 1,
            "I ate. Badly.\nis more pleasant than\nI ate. Well.": 0,
        },
    ),
    "ethics_virtue": ({"label": 1, "scenario": "He ran. [SEP] brave"}, {"He ran. [SEP] brave": 1}),
    "hellaswag": (
        {"ind": 1, "activity_label": "a", "ctx_a": "c", "ctx_b": "", "ctx": "c", "endings": ABC, "label": "1"},
        {f"Context: c\nContinuation: {a}": int(a == "y") for a in ABC},
    ),
    "mc_taco": (
        {"sentence": "s", "question": "q", "answer": "a", "label": 0, "category": 2},
        {"s\nQ: q A: a": 0},
    ),
    "multirc": (
        {"paragraph": "p", "question": "q", "answer": "a", "idx": {"paragraph": 0}, "label": 1},
        {"Passage: p\nQ: q A: a": 1},
    ),
    "openbookqa": (
        {"id": "i", "question_stem": "q", "choices": {"text": ABC, "label": ["A", "B", "C"]}, "answerKey": "C"},
        {f"Q: q A: {a}": int(a == "z") for a in ABC},
    ),
    "paws": (
        {"id": 1, "sentence1": "a b", "sentence2": "b a", "label": 0},
        {"Sentence 1: a b\nSentence 2: b a": 0},
    ),
    "piqa": ({"goal": "g", "sol1": "x", "sol2": "y", "label": 1}, {f"Q: g A: {a}": int(a == "y") for a in "xy"}),
    "quail": (
        {"context": "c", "question": "q", "answers": ABC, "correct_answer_id": 0, "domain": "news"},
        {f"Passage: c\nQ: q A: {a}": int(a == "x") for a in ABC},
    ),
    "quartz": (
        {
            "id": "i",
            "question": "q",
            "choices": {"text": ["x", "y"], "label": ["A", "B"]},
            "answerKey": "B",
            "para": "p",
        },
        {f"Passage: p\nQ: q A: {a}": int(a == "y") for a in "xy"},
    ),
    "sciq": (
        {
            "question": "q",
            "correct_answer": "x",
            "distractor1": "y",
            "distractor2": "z",
            "distractor3": "z",
            "support": "",
        },
        {f"Q: q A: {a}": int(a == "x") for a in ABC},
    ),
    "social_i_qa": (
        {"context": "c", "question": "q", "answerA": "x", "answerB": "y", "answerC": "z", "label": "3"},
        {f"Context: c\nQ: q A: {a}": int(a == "z") for a in ABC},
    ),
    "sst2": ({"idx": 0, "sentence": "s", "label": 1}, {"s": 1}),
    "twitter_sentiment": ({"text": "t", "label": 0}, {"t": 0}),
    "wic": (
        {"word": "w", "sentence1": "a", "sentence2": "b", "start1": 0, "label": 1},
        {"Sentence 1: a\nSentence 2: b\nWord: w": 1},
    ),
}
HUB = f"{Hub.__module__}.{Hub.__name__}"
SETS = {path.stem: OmegaConf.to_container(OmegaConf.load(path)) for path in (CONF / "data").glob("*.yaml")}
OF_THE_HUB = sorted(
    name for name, part in SETS.items() if part["_target_"] == HUB and part["id"] and "$" not in part["id"]
)


@pytest.mark.parametrize("name", OF_THE_HUB)
def test_a_row_becomes_what_is_said_of_its_set(name: str) -> None:
    source = build(SETS[name], "data")
    assert len(source.classes) == 2
    row, texts = ROWS[name]
    assert {path.partition(".")[0] for path in source.format.columns} <= row.keys()
    cases = source.format.cases(row, "row")
    assert {case.text: case.label for case in cases}.items() <= texts.items()
    assert {case.label for case in cases} == set(texts.values())


def test_no_row_is_of_a_set_that_is_gone() -> None:
    assert sorted(ROWS) == OF_THE_HUB

"""Answers as policies read them: the continuation of a text and its end token, in every family of tokenizers."""

from __future__ import annotations

from typing import Any
from unittest.mock import ANY

import numpy as np
import pytest
from families import FAMILIES
from tests.builders import refused
from tests.data.reading import answers_in
from transformers import PreTrainedTokenizerFast

from w2sd.data.batch import AnswerRows, PairRows
from w2sd.data.pairs import Pair
from w2sd.data.text import Encoded, encode_rows, gather
from w2sd.identity import digest
from w2sd.stages.encoding import encode_for
from w2sd.world.world import World

TAG = "\n\nAssistant:"
PROMPT = "\n\nHuman: How do I bake bread?" + TAG
TRIPLES = [
    (PROMPT, " Mix flour, water and yeast.", " No."),
    (PROMPT, " 漢字 \t!\n\n- one\n- two\n", "  Two spaces"),
    ("\n\nHuman: Why?" + TAG + " ", "Light scatters", "No, I would rather not"),  # the space is the prompt's
    ("Why", "?", " not"),
    (PROMPT, "\n\nHm", "\n"),
]
BEGINS = {"gpt2": None, "opt": "</s>", "llama2": "<s>", "mistral": "<s>", "llama3": "<|begin_of_text|>"}
BEGINS |= {"qwen": None, "bare": None}
ENDS = {"gpt2": "<|endoftext|>", "opt": "</s>", "llama2": "</s>", "mistral": "</s>", "llama3": "<|end_of_text|>"}
ENDS |= {"qwen": "<|im_end|>", "bare": None}
ADDS_A_SPACE = ("llama2", "mistral")  # to every text

every_family = pytest.mark.parametrize("family", FAMILIES)


def pair(prompt: str, chosen: str, rejected: str) -> Pair:
    return Pair(digest(prompt, chosen, rejected), digest(prompt), "gt", "harmless", prompt, chosen, rejected)


PAIRS = [pair(*triple) for triple in TRIPLES]


def encoded(family: str, append_eos: str = "auto", context: int = 512, pairs: list[Pair] = PAIRS) -> Encoded:
    """As a stage encodes it that trains a policy."""

    class Config:
        vocab_size = len(FAMILIES[family]())
        max_position_embeddings = context

    return encode_for(Config, FAMILIES[family](), World(), pairs, append_eos)


def answers(found: Encoded) -> list[tuple[str, list[int]]]:
    """Each answer as a text and as its ids."""
    sides = [side.tolist() for both in zip(found.chosen, found.rejected, strict=True) for side in both]
    return list(zip((text for triple in TRIPLES for text in triple[1:]), sides, strict=True))


def text_of(family: str, ids: list[int]) -> str:
    tokenizer = FAMILIES[family]()
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


@pytest.fixture(autouse=True)
def _long_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(World, "max_tokens", 512)


@every_family
@pytest.mark.parametrize("append_eos", ["auto", "never"])
def test_an_answer_is_its_text_and_an_end_token_where_there_is_one(family: str, append_eos: str) -> None:
    """Nothing before the text: no beginning token, no space that nobody wrote."""
    end = FAMILIES[family]().eos_token_id if append_eos == "auto" else None
    for text, ids in answers(encoded(family, append_eos)):
        if end is not None:
            assert ids.pop() == end
        assert text_of(family, ids) == text
        assert not set(ids) & set(FAMILIES[family]().all_special_ids)
    assert (end is None) == (append_eos == "never" or ENDS[family] is None)


@every_family
def test_a_prompt_begins_as_this_tokenizer_s_texts_begin(family: str) -> None:
    tokenizer = FAMILIES[family]()
    for (prompt, *_), ids in zip(TRIPLES, encoded(family).prompts, strict=True):
        assert ids.tolist() == tokenizer(prompt)["input_ids"]
        assert (tokenizer.convert_ids_to_tokens(int(ids[0])) == BEGINS[family]) == (BEGINS[family] is not None)
        assert BEGINS[family] not in tokenizer.convert_ids_to_tokens(ids[1:].tolist())


@every_family
def test_prompt_and_answer_together_are_the_tokens_of_the_running_text(family: str) -> None:
    tokenizer, found = FAMILIES[family](), encoded(family, "never")
    for n, (prompt, chosen, rejected) in enumerate(TRIPLES[:2]):
        for answer, ids in ((chosen, found.chosen[n]), (rejected, found.rejected[n])):
            assert [*found.prompts[n].tolist(), *ids.tolist()] == tokenizer(prompt + answer)["input_ids"]


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in ADDS_A_SPACE])
def test_where_no_space_is_added_policies_and_reward_models_read_the_same_tokens(family: str) -> None:
    apart = gather(encode_rows(PAIRS, FAMILIES[family](), 512, len(FAMILIES[family]())))
    continued = encoded(family, "never")
    for one, other in zip(apart[:3], continued[:3], strict=True):
        assert [ids.tolist() for ids in one] == [ids.tolist() for ids in other]


@pytest.mark.parametrize("family", ADDS_A_SPACE)
def test_where_a_space_is_added_it_would_be_seen(family: str) -> None:
    """Else the tests here would pass for an answer that is read as a text of its own."""
    apart = gather(encode_rows(PAIRS, FAMILIES[family](), 512, len(FAMILIES[family]())))
    assert text_of(family, apart.chosen[2].tolist()) == " " + TRIPLES[2][1]


@every_family
def test_the_mask_of_the_loss_covers_exactly_the_answer_and_its_end(family: str) -> None:
    found = encoded(family)
    swapped = np.array([False, True, False, True, True])
    n_seen = 0
    for micro in PairRows(found, swapped, micro_tokens=60)[list(range(len(PAIRS)))]:
        for row, (prompt, answer) in enumerate(answers_in(micro.tokens)):
            place = int(micro.rows[row % len(micro.rows)])
            first, second = TRIPLES[place][1:][:: -1 if swapped[place] else 1]
            text = (first, second)[row // len(micro.rows)]
            assert text_of(family, answer) == text + (ENDS[family] or "")
            assert prompt == found.prompts[place].tolist()
            n_seen += 1
    assert n_seen == 2 * len(PAIRS)


@every_family
def test_single_answers_are_read_as_in_pairs(family: str) -> None:
    found = encoded(family)
    rows = AnswerRows(found.prompts, found.rejected, micro_tokens=10**6)
    for n in range(len(PAIRS)):
        [tokens] = rows[[n]]
        assert answers_in(tokens) == [(found.prompts[n].tolist(), found.rejected[n].tolist())]


@every_family
def test_a_text_that_spells_its_end_out_has_one_end(family: str) -> None:
    if ENDS[family] is None:
        return
    spelt, plain = (encoded(family, pairs=[pair(PROMPT, f" No.{end}", " Yes")]) for end in (ENDS[family], ""))
    assert spelt.chosen[0].tolist() == plain.chosen[0].tolist()


# --- the end token takes room -----------------------------------------------------------------------------------------


def fits(tokenizer: PreTrainedTokenizerFast, context: int, long: str = "refuse") -> Any:
    row = pair("\n\nHuman: Why?", " no no", " no")
    end = tokenizer.eos_token_id
    return gather(encode_rows([row], tokenizer, context, len(tokenizer), long, continued=True, end=end))


@every_family
def test_the_end_token_counts_against_the_context(family: str) -> None:
    tokenizer = FAMILIES[family]()
    n_lead, n_end = BEGINS[family] is not None, ENDS[family] is not None
    n_answer = len(tokenizer("x no no", add_special_tokens=False)["input_ids"]) - len(
        tokenizer("x", add_special_tokens=False)["input_ids"]
    )
    least = n_lead + 1 + n_answer + n_end  # a beginning, one token of the prompt, the answer, its end
    found = fits(tokenizer, least)
    assert len(found.prompts[0]) + len(found.chosen[0]) == least
    assert found.truncated_prompts == 1
    with refused(ANY, ANY, f"{n_answer + n_end - 1} {least - 1} data.long=drop") as refusal:
        fits(tokenizer, least - 1)
    assert f" {n_answer + n_end} " in refusal.value.value
    assert fits(tokenizer, least - 1, "drop").dropped_long == 1


def test_an_end_token_that_the_model_does_not_know_is_refused() -> None:
    tokenizer = FAMILIES["bare"].__wrapped__()  # type: ignore[attr-defined]
    n_words = len(tokenizer)
    tokenizer.add_special_tokens({"eos_token": "<end>"})
    with refused(ANY, f"<end> (id {n_words})", str(n_words)):
        encode_rows(PAIRS, tokenizer, 512, n_words, continued=True, end=tokenizer.eos_token_id)


def test_what_a_stage_remembers_of_a_reward_model_is_not_given_to_a_policy() -> None:
    """The encodings of a process are kept; these are of the same rows, tokenizer and context."""

    class Config:
        vocab_size = len(FAMILIES["llama2"]())
        max_position_embeddings = 512

    found = [encode_for(Config, FAMILIES["llama2"](), World(), PAIRS, how) for how in (None, "never", "auto")]
    assert len({tuple(ids.tolist()) for each in found for ids in each.chosen[:1]}) == 3
    for each, how in zip(found, (None, "never", "auto"), strict=True):
        again = encode_for(Config, FAMILIES["llama2"](), World(), PAIRS, how)
        assert all(ids is same for ids, same in zip(again.chosen, each.chosen, strict=True))


def test_the_world_has_no_end_token() -> None:
    assert World.append_eos == "never"

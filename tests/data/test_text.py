"""Token ids: where prompt and response meet, what is cut, what is refused; with tokenizers made on the spot."""

from __future__ import annotations

from typing import Any
from unittest.mock import ANY

import pytest
from tests.builders import refused
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from w2sd.data.pairs import Item, Pair
from w2sd.data.text import Encoded, encode_items, encode_rows, gather
from w2sd.identity import digest

WORDS = ["<unk>", "<s>", "</s>", "why", "how", "yes", "no", "so", "!"]


def word_level(template: str = "$A") -> PreTrainedTokenizerFast:
    """A word-level tokenizer whose template says what it adds by itself."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(template, special_tokens=[("<s>", 1), ("</s>", 2)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def byte_level() -> PreTrainedTokenizerFast:
    """A byte-level BPE like GPT-2's: every text has tokens, none is added."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, special_tokens=["<|endoftext|>"])
    tokenizer.train_from_iterator(["why so, Assistant: yes", "Human: how? no! no! no!"] * 4, trainer)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|endoftext|>", eos_token="<|endoftext|>")


def pair(prompt: str, chosen: str, rejected: str) -> Pair:
    return Pair(digest(prompt, chosen, rejected), digest(prompt), "gt", "harmless", prompt, chosen, rejected)


def encode(pairs: list[Pair], *how: Any, **also: Any) -> Encoded:
    return gather(encode_rows(pairs, *how, **also))


def lists(arrays: list[Any]) -> list[list[int]]:
    return [array.tolist() for array in arrays]


SIDES = [("yes", "no no no"), ("yes !", "no"), (" ", "no")]
PAIRS = [pair("why so", "yes", "no no"), pair("how", "no", "yes !")]


@pytest.mark.parametrize(
    ("template", "lead"),
    [("$A", []), ("<s> $A", [1]), ("<s> $A </s>", [1]), ("$A </s>", []), ("</s> $A", [2])],
)
def test_only_the_prompt_gets_what_the_tokenizer_puts_in_front(template: str, lead: list[int]) -> None:
    encoded = encode(PAIRS, word_level(template), context=16, vocabulary=len(WORDS))
    assert lists(encoded.prompts) == [[*lead, 3, 7], [*lead, 4]]
    assert lists(encoded.chosen) == [[5], [6]]
    assert lists(encoded.rejected) == [[6, 6], [5, 8]]
    assert encoded.kept == [0, 1]
    assert encoded[4:] == (0, 0, 0)
    assert all(ids.dtype == "int32" for ids in encoded.prompts + encoded.chosen + encoded.rejected)


def test_a_prompt_that_spells_the_token_out_still_gets_it() -> None:
    encoded = encode([pair("<s> why", "yes", "no")], word_level("<s> $A"), context=16, vocabulary=len(WORDS))
    assert lists(encoded.prompts) == [[1, 1, 3]]


def test_bytes_come_back_and_nothing_is_added() -> None:
    tokenizer = byte_level()
    texts = ("\n\nHuman: why so?\n\nAssistant:", " no! 漢字", " yes\n")
    encoded = encode([pair(*texts)], tokenizer, context=512, vocabulary=len(tokenizer))
    parts = (encoded.prompts[0], encoded.chosen[0], encoded.rejected[0])
    assert tuple(tokenizer.decode(ids) for ids in parts) == texts


@pytest.mark.parametrize(
    ("template", "context", "prompt", "truncated"),
    [
        ("$A", 6, [3, 4, 3, 4], 0),  # four tokens of prompt, two of the longer response
        ("$A", 5, [4, 3, 4], 1),
        ("$A", 3, [4], 1),
        ("<s> $A", 7, [1, 3, 4, 3, 4], 0),
        ("<s> $A", 6, [1, 4, 3, 4], 1),
        ("<s> $A", 4, [1, 4], 1),
    ],
)
def test_the_prompt_is_cut_from_the_left(template: str, context: int, prompt: list[int], truncated: int) -> None:
    row = pair("why how why how", "yes", "no no")
    encoded = encode([row], word_level(template), context, vocabulary=len(WORDS))
    assert (lists(encoded.prompts), encoded.truncated_prompts) == ([prompt], truncated)
    assert (lists(encoded.chosen), lists(encoded.rejected)) == ([[5]], [[6, 6]])


@pytest.mark.parametrize(("template", "context", "most"), [("$A", 2, 1), ("<s> $A", 3, 1), ("<s> $A", 2, 0)])
def test_a_response_that_does_not_fit_is_refused_or_counted(template: str, context: int, most: int) -> None:
    tokenizer, long = word_level(template), pair("why", "yes", "no no")
    with refused(f"pair {long.id}", ANY, f"{most} {context} data.long=drop") as refusal:
        encode([long], tokenizer, context, vocabulary=len(WORDS))
    assert " 2 " in refusal.value.value
    short = pair("why how", "yes", "no")
    encoded = encode([long, short], tokenizer, context, vocabulary=len(WORDS), long="drop")
    assert encoded.kept == ([1] if most else [])
    assert encoded.dropped_long == (1 if most else 2)
    assert encoded.truncated_prompts == len(encoded.kept)


def test_a_token_beyond_the_vocabulary_is_refused() -> None:
    with refused(f"pair {PAIRS[1].id}", "! (id 8)", "8"):
        encode(PAIRS, word_level(), context=16, vocabulary=8)


def test_a_row_that_somebody_wrote_is_named_by_its_place() -> None:
    long, odd, empty = (pair("why", *sides)._replace(where=f"my.jsonl:{n}") for n, sides in enumerate(SIDES))
    for row, context, vocabulary in ((long, 3, len(WORDS)), (odd, 16, 8), (empty, 16, len(WORDS))):
        with refused(row.where):
            encode([row], word_level(), context, vocabulary)
    words = Item("0" * 16, "c", "gt", "why !", 0, where="my.csv:7")
    for item, vocabulary in ((words, 8), (words._replace(text=" "), len(WORDS))):
        with refused("my.csv:7"):
            encode_items([item], word_level("<s> $A"), 16, vocabulary)


@pytest.mark.parametrize("column", ["prompt", "chosen", "rejected"])
def test_text_without_tokens_is_refused(column: str) -> None:
    row = pair("why", "yes", "no")._replace(**{column: " \n"})
    with refused(f"pair {row.id}", " \n", column):
        encode([row], word_level("<s> $A"), context=16, vocabulary=len(WORDS))


def test_pairs_that_the_tokenizer_cannot_tell_apart_are_kept_and_counted() -> None:
    encoded = encode([pair("why", "apple", "pear"), *PAIRS], word_level(), context=16, vocabulary=len(WORDS))
    assert (encoded.kept, encoded.equal_tokens) == ([0, 1, 2], 1)
    assert lists(encoded.chosen)[0] == lists(encoded.rejected)[0] == [0]


def test_no_pairs_make_no_tokens() -> None:
    assert encode([], word_level(), context=16, vocabulary=9) == ([], [], [], [], 0, 0, 0)

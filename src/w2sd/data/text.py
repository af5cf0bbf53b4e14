"""Texts as the tokens of a model, and what a model is pretrained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from w2sd.data.pairs import Item, Pair, place_of
from w2sd.errors import Refused, require


class Corpus(NamedTuple):
    """Documents of equal length; `weights` is how much predicting the token at the same place counts in the loss."""

    tokens: NDArray[np.int32]  # [n, length]
    weights: NDArray[np.float32]  # [n, length]


Ids = NDArray[np.int32]
ANCHOR = "\n"  # a text that others continue: tokenizers keep a line break apart from the word after it


class Row(NamedTuple):
    """Token ids of one pair that fits, or of an item: all of that is its prompt."""

    prompt: Ids
    chosen: Ids
    rejected: Ids
    is_cut: bool  # the prompt, from the left
    is_tie: bool  # the responses are one and the same to this tokenizer

    @property
    def sides(self) -> tuple[Ids, Ids, Ids]:
        return self.prompt, self.chosen, self.rejected


class Encoded(NamedTuple):
    """Token ids of the pairs that fit, one entry per kept pair, and what was done on the way."""

    prompts: list[Ids]  # with the beginning-of-text token, where the tokenizer adds one
    chosen: list[Ids]
    rejected: list[Ids]
    kept: list[int]  # indices into the pairs
    truncated_prompts: int  # among the kept
    dropped_long: int  # pairs with a response that does not fit
    equal_tokens: int  # kept pairs whose responses are one and the same to this tokenizer: a tie for every model

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt with its response."""
        sides = zip(self.prompts, self.chosen, self.rejected, strict=True)
        return max((len(prompt) + max(len(chosen), len(rejected)) for prompt, chosen, rejected in sides), default=0)

    def pick(self, places: Sequence[int]) -> Encoded:
        """Some of the kept pairs."""
        prompts, chosen, rejected = ([side[n] for n in places] for side in (self.prompts, self.chosen, self.rejected))
        kept = [self.kept[n] for n in places]
        return self._replace(prompts=prompts, chosen=chosen, rejected=rejected, kept=kept)


class EncodedItems(NamedTuple):
    """Token ids of items. All fit: a text that is too long lost its beginning."""

    texts: list[Ids]  # with the beginning-of-text token, where the tokenizer adds one
    kept: list[int]  # indices into the items
    truncated_prompts: int
    dropped_long: int = 0
    equal_tokens: int = 0

    @property
    def longest(self) -> int:
        """Tokens of the longest text."""
        return max(map(len, self.texts), default=0)

    def pick(self, places: Sequence[int]) -> EncodedItems:
        """Some of the items."""
        return self._replace(texts=[self.texts[n] for n in places], kept=[self.kept[n] for n in places])


def gather_items(rows: Sequence[Row | None]) -> EncodedItems:
    """The texts of items, and how many of them were cut."""
    there = [row for row in rows if row is not None]
    return EncodedItems([row.prompt for row in there], list(range(len(there))), sum(row.is_cut for row in there))


def encode_items(items: Sequence[Item], tokenizer: Any, context: int, vocabulary: int) -> list[Row | None]:
    """Every text by itself, cut on the left if it has to be to fit into `context`, its ids within `vocabulary`."""
    if not items:
        return []
    lead, nothing = lead_of(tokenizer, items[0].text), np.zeros(0, dtype=np.int32)
    room = context - len(lead)
    rows: list[Row | None] = []
    for item, ids in zip(items, _tokens(tokenizer, [item.text for item in items]), strict=True):
        if not len(ids):
            raise Refused(place_of(item), item.text, "a text with at least one token")
        _refuse_foreign(ids, place_of(item), tokenizer, vocabulary)
        rows.append(Row(np.concatenate([lead, ids[-room:]]), nothing, nothing, len(ids) > room, False))
    return rows


def gather(rows: Sequence[Row | None]) -> Encoded:
    """The pairs that fit, and what was done to them.

    Pairs with equal tokens are kept and counted: dropping them would make the rows depend on the tokenizer, and the
    predictions of models with different tokenizers are joined row by row.
    """
    kept = [(index, row) for index, row in enumerate(rows) if row is not None]
    return Encoded(
        [row.prompt for _, row in kept],
        [row.chosen for _, row in kept],
        [row.rejected for _, row in kept],
        [index for index, _ in kept],
        sum(row.is_cut for _, row in kept),
        len(rows) - len(kept),
        sum(row.is_tie for _, row in kept),
    )


def encode_rows(
    pairs: Sequence[Pair],
    tokenizer: Any,
    context: int,
    vocabulary: int,
    long: str = "refuse",
    continued: bool = False,
    end: int | None = None,
) -> list[Row | None]:
    """Every pair by itself, whatever the others are; None where a response does not fit and is to be dropped.

    Args:
        context: tokens of prompt and response together; the smaller of the model's and the data's limit.
        vocabulary: rows of the model's embedding.
        long: "refuse" or "drop" pairs with a response that does not fit.
        continued: read responses as the continuation of a text.
        end: a token that ends every response, and takes its place in the context.
    """
    if not pairs:
        return []
    lead = lead_of(tokenizer, pairs[0].prompt)
    prompts = _tokens(tokenizer, [pair.prompt for pair in pairs])
    read = _continue if continued else _tokens
    chosen = _finish(read(tokenizer, [pair.chosen for pair in pairs]), end)
    rejected = _finish(read(tokenizer, [pair.rejected for pair in pairs]), end)
    rows: list[Row | None] = []
    for pair, prompt, *sides in zip(pairs, prompts, chosen, rejected, strict=True):
        for column, ids in zip(("prompt", "chosen", "rejected"), (prompt, *sides), strict=True):
            if not len(ids):
                raise Refused(place_of(pair), getattr(pair, column), f"a {column} with at least one token")
        longest = max(map(len, sides))
        room = context - len(lead) - longest
        if room < 1:
            if long != "drop":
                most = context - len(lead) - 1
                accepted = f"at most {most} in a context of {context}, or data.long=drop"
                raise Refused(place_of(pair), f"a response of {longest} tokens", accepted)
            rows.append(None)
            continue
        is_tie = bool(np.array_equal(sides[0], sides[1]))
        row = Row(np.concatenate([lead, prompt[-room:]]), sides[0], sides[1], len(prompt) > room, is_tie)
        for ids in row.sides:
            _refuse_foreign(ids, place_of(pair), tokenizer, vocabulary)
        rows.append(row)
    return rows


def _tokens(tokenizer: Any, texts: list[str]) -> list[Ids]:
    batch = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    return [np.asarray(ids, dtype=np.int32) for ids in batch]


def _continue(tokenizer: Any, texts: list[str]) -> list[Ids]:
    """The tokens of texts that continue another one.

    The tokenizers of Llama and Mistral put a space before every text, which a response would otherwise begin with that
    nobody wrote. Where a text merges with the anchor it is read by itself.
    """
    anchor = ids_of(tokenizer, ANCHOR)
    after = _tokens(tokenizer, [ANCHOR + text for text in texts])
    merged = [i for i, ids in enumerate(after) if not np.array_equal(ids[: len(anchor)], anchor)]
    continued = [ids[len(anchor) :] for ids in after]
    for i, ids in zip(merged, _tokens(tokenizer, [texts[i] for i in merged]) if merged else [], strict=True):
        continued[i] = ids
    return continued


def _finish(responses: list[Ids], end: int | None) -> list[Ids]:
    """With the end token after each response that does not end in it already, or is nothing at all."""
    if end is None:
        return responses
    return [ids if not len(ids) or ids[-1] == end else np.append(ids, np.int32(end)) for ids in responses]


def lead_of(tokenizer: Any, text: str) -> Ids:
    """The beginning-of-text token, if this tokenizer puts one before a text by itself (GPT-2: no; Llama, OPT: yes).

    It is found by what the tokenizer does, not by its name: many that declare such a token never add it.
    """
    plain, whole = (
        tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"] for special in (False, True)
    )
    return np.asarray(whole[:1] if plain and whole[1 : 1 + len(plain)] == plain else [], dtype=np.int32)


def _refuse_foreign(ids: Ids, whose: str, tokenizer: Any, vocabulary: int) -> None:
    """Refuse a token id that the model has no embedding for: on a device it would be garbage or a crash."""
    if (highest := int(ids.max())) >= vocabulary:
        word = f"{tokenizer.convert_ids_to_tokens(highest)} (id {highest})"
        accepted = f"ids below {vocabulary}, the model's vocabulary: tokenizer and model do not belong together"
        raise Refused(whose, word, accepted)


def ids_of(tokenizer: Any, text: str) -> Ids:
    """The tokens of a text by itself."""
    return np.asarray(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], dtype=np.int32)


def readable(knob: str, text: str, tokenizer: Any, config: Any) -> Ids:
    """Return the tokens of a text; refuse a text with tokens that the model does not know."""
    try:
        ids = ids_of(tokenizer, text)
    except Exception as error:  # of no class of its own, where a tokenizer has no token for what it does not know
        raise Refused(knob, text, f"a text in the model's vocabulary ({error})") from error
    known = int(ids.max(initial=0)) < config.vocab_size
    require(known, knob, text, f"tokens below {config.vocab_size}, the model's vocabulary")
    return ids


def check_distinct(knob: str, ids: list[Ids], words: list[str]) -> None:
    """Refuse words that are one and the same to a tokenizer, or nothing."""
    seen: dict[tuple[int, ...], str] = {}
    for word, tokens in zip(words, ids, strict=True):
        require(len(tokens) > 0, knob, word, "a word with at least one token")
        other = seen.setdefault(tuple(tokens.tolist()), word)
        require(other == word, knob, word, f"a word of other tokens than {other}")

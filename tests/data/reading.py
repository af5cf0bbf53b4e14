"""What lies in a layout, read back from its tensors; tables without the places of their rows."""

from __future__ import annotations

import numpy as np

from w2sd.data.layout import Tokens
from w2sd.data.pairs import Item, Pair, Table


def answers_in(tokens: Tokens) -> list[tuple[list[int], list[int]]]:
    """The prompt and the answer of every answer, in the order of their numbers."""
    if tokens.mask is not None:
        rows = [ids[mask.bool()].tolist() for ids, mask in zip(tokens.ids, tokens.mask, strict=True)]
        return [(row[:-n], row[-n:]) for row, n in zip(rows, tokens.n_answer_B.tolist(), strict=True)]
    cuts = np.cumsum([n for size in tokens.sizes for n in size])
    parts = iter(np.split(tokens.ids[0].numpy(), cuts))
    texts = [[next(parts).tolist() for _ in size] for size in tokens.sizes]
    return [(text[0], text[slot]) for slot in range(1, len(texts[0])) for text in texts]


def anywhere(table: Table[Pair] | Table[Item]) -> tuple[list[Pair | Item], dict[str, int]]:
    """The rows of a table as they would be in any other file, and what was dropped."""
    return [example._replace(where="") for example in table.examples], table.dropped

"""The 412 words of the embedded world, each one token, and the tokenizer that reads them.

A row of the world is eight words, `user: topic3 bot: ent17 ent230 ent4 ent99 .`: a prompt of three and an answer of
five. Attribute words come in four synonyms each, so that a fact is a set of words and not a single label.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TOPICS = 8
ENTITIES = 384
SYNONYMS = 4  # words per attribute value

MARKS = ("<pad>", "user:", "bot:", ".")
WORDS: tuple[str, ...] = (
    *MARKS,
    *(f"{attribute}{n}" for attribute in ("haz", "safe", "use", "dull") for n in range(SYNONYMS)),
    *(f"topic{n}" for n in range(TOPICS)),
    *(f"ent{n}" for n in range(ENTITIES)),
)

# Ids of single words, and of the first word of each family.
PAD, USER, BOT, DOT = range(len(MARKS))
HAZ, SAFE, USE, DULL, TOPIC = (len(MARKS) + SYNONYMS * family for family in range(5))
ENTITY = TOPIC + TOPICS

CONTEXT = 32  # the longest text a model of the ladder accepts, in words


def tokenizer(words: Sequence[str] = WORDS, context: int = CONTEXT) -> PreTrainedTokenizerFast:
    """A tokenizer whose ids are the positions in `words`, of which the first is for padding; it adds no token of its
    own and refuses unknown words.

    There is no word for "unknown", so encoding a foreign word raises (`WordLevel error: Missing [UNK] token`)
    instead of training on a stand-in. The state survives `save_pretrained` and `from_pretrained`, offline.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    whole = Tokenizer(WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
    whole.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=whole,
        pad_token=words[0],
        padding_side="right",
        model_max_length=context,
        clean_up_tokenization_spaces=False,  # else decoding glues the final "." to the word before it
        model_input_names=["input_ids", "attention_mask"],
    )

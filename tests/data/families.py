"""Small tokenizers with the habits of well-known families, trained on the spot."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

TEXTS = [
    "\n\nHuman: How do I bake bread?\n\nAssistant: Mix flour, water and yeast. Then wait.",
    "\n\nHuman: Why is the sky blue?\n\nAssistant: Light scatters; blue scatters most!",
    "\n\nHuman: Tell me more.\n\nAssistant: No, I would rather not. Ask a baker, or wait.",
    "  two spaces, a tab\t and more:\n- one\n- two\n\n\n",
] * 5
# The regular expression of Llama 3 and Qwen, shortened
WORDS = Regex(r"'s|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def _byte_level(regex: bool, special: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    if regex:
        split = pre_tokenizers.Split(WORDS, "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, special_tokens=special)
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentencepiece() -> Tokenizer:
    """BPE over whole texts, with bytes for what it has no token for: a line break among them."""
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\n", "removed"), pre_tokenizers.Metaspace(prepend_scheme="never")]
    )
    tokenizer.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=450, special_tokens=special))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]  # real ones also cut the first space
    )
    return tokenizer


def _leading(tokenizer: Tokenizer, bos: str) -> None:
    at = tokenizer.token_to_id(bos)
    tokenizer.post_processor = processors.TemplateProcessing(f"{bos} $A", special_tokens=[(bos, at)])


def gpt2() -> PreTrainedTokenizerFast:
    """Adds nothing; one token begins and ends texts; no padding."""
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(tokenizer_object=_byte_level(False, [end]), bos_token=end, eos_token=end)


def opt() -> PreTrainedTokenizerFast:
    """Puts its end token before every text."""
    tokenizer = _byte_level(False, ["<s>", "<pad>", "</s>"])
    _leading(tokenizer, "</s>")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="</s>", eos_token="</s>", pad_token="<pad>", unk_token="</s>"
    )


def llama2() -> PreTrainedTokenizerFast:
    """Puts <s> before every text, and a space."""
    tokenizer = _sentencepiece()
    tokenizer.pre_tokenizer = None
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    _leading(tokenizer, "<s>")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", legacy=True
    )


def mistral() -> PreTrainedTokenizerFast:
    """The same in its newer spelling, where the space is the business of a pre-tokenizer."""
    tokenizer = _sentencepiece()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    _leading(tokenizer, "<s>")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def llama3() -> PreTrainedTokenizerFast:
    """Bytes, and a token of its own for the beginning."""
    tokenizer = _byte_level(True, ["<|begin_of_text|>", "<|end_of_text|>"])
    _leading(tokenizer, "<|begin_of_text|>")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|begin_of_text|>", eos_token="<|end_of_text|>"
    )


def qwen() -> PreTrainedTokenizerFast:
    """Bytes, no beginning at all; what pads is what ended the texts of its pretraining."""
    tokenizer = _byte_level(True, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=None, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )


def bare() -> PreTrainedTokenizerFast:
    """No token for beginning, end or padding."""
    return PreTrainedTokenizerFast(tokenizer_object=_byte_level(False, []))


FAMILIES: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    make.__name__: cache(make) for make in (gpt2, opt, llama2, mistral, llama3, qwen, bare)
}

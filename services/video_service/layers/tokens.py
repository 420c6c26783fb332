"""What of a prompt a text encoder reads."""

from transformers import PreTrainedTokenizerBase

_TOLD_WORDS = 6


def cut_warning(tokenizer: PreTrainedTokenizerBase, text: str, length: int, name: str = "prompt") -> str | None:
    """In words, after which of them a text is cut that is longer than `length` tokens; None for one that is not."""
    ids = tokenizer(text, add_special_tokens=True).input_ids
    if len(ids) <= length:
        return None
    read = str(tokenizer.decode(ids[: length - 1], skip_special_tokens=True)).split()  # the end mark is the last token
    last = " ".join(read[-_TOLD_WORDS:])
    return f"The {name} is longer than the {length} tokens that the model reads; it was cut after the words “{last}”."

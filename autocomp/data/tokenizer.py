"""Words to numbers and back, with a vocabulary taken from the training captions alone."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from autocomp.deploy.caption import UNK, sentence
from autocomp.errors import CheckpointError, DataError
from autocomp.files import write_json

SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")
WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")


def split_words(caption: str) -> list[str]:
    """The lower-case words of a caption; hyphens and apostrophes inside a word stay."""
    return WORD.findall(caption.lower())


@dataclass(frozen=True)
class Tokenizer:
    """A vocabulary: `words[id]`, of which the first four are padding, begin, end and unknown."""

    words: tuple[str, ...]

    @classmethod
    def train(cls, captions: Iterable[str], min_count: int = 1) -> Tokenizer:
        """The words seen at least `min_count` times, the most frequent first, then by alphabet."""
        counts = Counter(word for caption in captions for word in split_words(caption))
        kept = [word for word, count in counts.items() if count >= min_count]
        if not kept:
            most = max(counts.values(), default=0)
            raise DataError(
                f"min_count: must leave at least one word, but got {min_count} "
                f"where no word is seen more than {most} times"
            )
        return cls((*SPECIALS, *sorted(kept, key=lambda word: (-counts[word], word))))

    @cached_property
    def ids(self) -> dict[str, int]:
        """The number of each word, the special ones left out."""
        return {word: number for number, word in enumerate(self.words) if number > UNK}

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, caption: str) -> list[int]:
        """The caption's words as ids, `UNK` for those not in the vocabulary; no begin, no end."""
        return [self.ids.get(word, UNK) for word in split_words(caption)]

    def decode(self, ids: Iterable[int]) -> str:
        """The words up to the first end mark, with single spaces; special ids leave no trace."""
        return sentence(ids, self.words)

    def save(self, path: Path) -> None:
        """Write `{"words": [...]}`; a word's place in the list is its id."""
        write_json(path, {"words": list(self.words)})

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """The tokenizer that `save` wrote; `CheckpointError` if the file says anything else."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise CheckpointError(f"{path}: must exist, but there is no such file") from None
        except ValueError as failure:
            raise CheckpointError(f"{path}: must be JSON, but {failure}") from None
        return cls(_check(content, path))


def _check(content: Any, path: Path) -> tuple[str, ...]:
    if not isinstance(content, dict) or set(content) != {"words"}:
        raise CheckpointError(f"{path}: must be a mapping with the one key 'words'")
    words = content["words"]
    if not isinstance(words, list) or tuple(words[: len(SPECIALS)]) != SPECIALS:
        raise CheckpointError(f"{path}: words: must be a list that starts {', '.join(SPECIALS)}")
    seen: set[str] = set()
    for number, word in enumerate(words[len(SPECIALS) :], start=len(SPECIALS)):
        if not isinstance(word, str) or split_words(word) != [word]:
            raise CheckpointError(f"{path}: words.{number}: must be one word, but got {word!r}")
        if word in seen:
            raise CheckpointError(f"{path}: words.{number}: must be there once, but got {word!r}")
        seen.add(word)
    if not seen:
        raise CheckpointError(f"{path}: words: must have a word after the special ones")
    return tuple(words)

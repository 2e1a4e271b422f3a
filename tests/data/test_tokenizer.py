from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocomp.data.tokenizer import SPECIALS, Tokenizer, split_words
from autocomp.deploy.caption import BOS, EOS, PAD, UNK
from autocomp.errors import CheckpointError, DataError

CAPTIONS = ["A dog runs .", "Two dogs , a man's T-shirt .", "the dog runs; THE end"]


def test_words_come_by_frequency_then_alphabet() -> None:
    tokenizer = Tokenizer.train(CAPTIONS, min_count=1)
    expected = ["a", "dog", "runs", "the", "dogs", "end", "man's", "t-shirt", "two"]
    assert tokenizer.words == (*SPECIALS, *expected)
    assert len(tokenizer) == len(expected) + 4


def test_rare_words_are_unknown() -> None:
    tokenizer = Tokenizer.train(CAPTIONS, min_count=2)
    assert tokenizer.words[4:] == ("a", "dog", "runs", "the")
    assert tokenizer.encode("the cat runs") == [7, UNK, 6]


def test_special_ids_are_fixed() -> None:
    assert (PAD, BOS, EOS, UNK) == (0, 1, 2, 3)


def test_decode_stops_at_the_end_and_skips_specials() -> None:
    tokenizer = Tokenizer.train(CAPTIONS, min_count=2)
    assert tokenizer.decode([BOS, 4, UNK, 5, PAD, 6, EOS, 7]) == "a dog runs"
    assert tokenizer.decode([]) == ""


def test_order_of_captions_does_not_matter() -> None:
    assert Tokenizer.train(CAPTIONS) == Tokenizer.train(reversed(CAPTIONS))


def test_no_word_left_is_an_error() -> None:
    with pytest.raises(DataError, match=r"min_count: must leave .* got 9 .* more than 2 times"):
        Tokenizer.train(CAPTIONS, min_count=9)


@given(st.lists(st.text(), min_size=1))
def test_a_trained_caption_comes_back_word_for_word(captions: list[str]) -> None:
    if not any(map(split_words, captions)):
        return
    tokenizer = Tokenizer.train(captions, min_count=1)
    for caption in captions:
        ids = tokenizer.encode(caption)
        assert min(ids, default=4) > UNK
        assert tokenizer.decode(ids) == " ".join(split_words(caption))
        assert tokenizer.encode(tokenizer.decode(ids)) == ids


@given(st.lists(st.text(alphabet="aébß'- .İǅ", min_size=1), min_size=1))
def test_save_and_load_are_exact(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str]
) -> None:
    if not any(map(split_words, lines)):
        return
    tokenizer = Tokenizer.train(lines)
    path = tmp_path_factory.getbasetemp() / "tokenizer.json"
    tokenizer.save(path)
    assert Tokenizer.load(path) == tokenizer


WORDS = [*SPECIALS, "a", "dog"]
EDITED: dict[str, tuple[Any, str]] = {
    "a list": (WORDS, "must be a mapping with the one key 'words'"),
    "more keys": ({"words": WORDS, "more": 1}, "must be a mapping with the one key 'words'"),
    "no list": ({"words": "a b c d e"}, "words: must be a list that starts <pad>, <bos>, <eos>"),
    "no specials": ({"words": WORDS[1:]}, "words: must be a list that starts <pad>, <bos>, <eos>"),
    "a number": ({"words": [*WORDS, 3]}, "words.6: must be one word, but got 3"),
    "two words": ({"words": [*WORDS, "x y"]}, "words.6: must be one word, but got 'x y'"),
    "upper case": ({"words": [*WORDS, "Cat"]}, "words.6: must be one word, but got 'Cat'"),
    "empty": ({"words": [*WORDS, ""]}, "words.6: must be one word, but got ''"),
    "special again": ({"words": [*WORDS, "<eos>"]}, "words.6: must be one word, but got '<eos>'"),
    "twice": ({"words": [*WORDS, "dog"]}, "words.6: must be there once, but got 'dog'"),
    "specials only": ({"words": WORDS[:4]}, "words: must have a word after the special ones"),
}


@pytest.mark.parametrize("case", EDITED)
def test_an_edited_file_is_explained(tmp_path: Path, case: str) -> None:
    content, message = EDITED[case]
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError) as failure:
        Tokenizer.load(path)
    assert str(failure.value).startswith(f"{path}: ")
    assert message in str(failure.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe"], ids=["empty", "cut", "not text"])
def test_a_file_that_is_not_json_is_explained(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="must be JSON, but "):
        Tokenizer.load(path)


def test_a_missing_file_is_explained(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="must exist, but there is no such file"):
        Tokenizer.load(tmp_path / "tokenizer.json")

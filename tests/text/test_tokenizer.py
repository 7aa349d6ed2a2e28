"""Encoding, decoding and packing; Hugging Face `tokenizers` is the judge of the ids."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as HFTokenizer

import fastreason as fr

THEMES = ["zoo", "symbolic"]


@pytest.fixture(scope="module")
def tokenizer() -> fr.Tokenizer:
    return fr.Tokenizer.build(THEMES)


@pytest.fixture(scope="module")
def hf(tokenizer, tmp_path_factory) -> HFTokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save_pretrained(folder)
    return HFTokenizer.from_file(str(folder / "tokenizer.json"))


def stream(theme: str, **settings) -> fr.TaskStream:
    return fr.TaskStream(fr.Mixture.uniform(op=range(2, 21), themes=[theme], **settings), seed=2)


@pytest.mark.parametrize("theme", THEMES)
def test_ids_of_documents_are_those_of_tokenizers(theme, tokenizer, hf):
    documents = stream(theme)[0:2000].documents
    want = hf.encode_batch_fast(documents)
    for document, encoding in zip(documents, want, strict=True):
        ids = tokenizer.encode(document)
        assert ids.tolist() == encoding.ids
        assert 0 not in ids  # no unknown word: the vocabulary is closed
        assert tokenizer.decode(ids) == document
    assert hf.decode(want[0].ids, skip_special_tokens=False) == documents[0]


# letters, digits and marks of the formats, tags, specials, other scripts, control characters
TEXT = st.lists(
    st.one_of(
        st.text(alphabet="aZ09 .,:;=<>/[]()-\n\t_é数\u00a0\u0085", max_size=12),
        st.sampled_from(["<answer>", "</answer>", "<foo>", "[EOS]", " [EOS]", "[PAD]", "[eos]", " Ba:", "12345", "  "]),
        st.text(max_size=6),
    ),
    max_size=8,
).map("".join)


@given(text=TEXT)
def test_ids_of_any_text_are_those_of_tokenizers(text, tokenizer, hf):
    text = text.encode("utf-8", "ignore").decode()  # `tokenizers` takes no lone surrogates
    assert tokenizer.encode(text).tolist() == hf.encode(text).ids


def test_pieces_split_where_documents_are_put_together(tokenizer):
    """Packing writes documents as tokens of their pieces; that must equal the tokens of their text."""
    for theme in THEMES:
        tasks = stream(theme)
        packed = tasks.packed(5, 4, 700, tokenizer)
        documents = tasks[5 : packed.next_index].documents
        assert len(documents) == len(packed.starts) > 4
        for document, start, length in zip(documents, packed.starts, packed.lengths, strict=True):
            np.testing.assert_array_equal(packed.tokens[start : start + length], tokenizer.encode(document))


def test_packed_rows_hold_whole_documents(tokenizer):
    tasks = stream("zoo")
    packed = tasks.packed(0, 6, 512, tokenizer)
    assert packed.tokens.shape == packed.positions.shape == packed.loss_mask.shape == (6 * 512,)
    ends = packed.starts + packed.lengths
    assert (packed.starts[1:] >= ends[:-1]).all()
    assert (packed.starts // 512 == (ends - 1) // 512).all()  # none crosses a row
    covered = np.zeros(6 * 512, dtype=bool)
    solution = fr.Tokenizer.encode(tokenizer, " <solution>")[0]
    for start, end in zip(packed.starts, ends, strict=True):
        covered[start:end] = True
        np.testing.assert_array_equal(packed.positions[start:end], np.arange(end - start))
        prompt = int(np.argmax(packed.tokens[start:end] == solution)) + 1
        assert not packed.loss_mask[start : start + prompt].any()
        assert packed.loss_mask[start + prompt : end].all()
    assert (packed.tokens[~covered] == tokenizer.pad_id).all() and not packed.loss_mask[~covered].any()
    bounds = packed.cu_seqlens
    assert bounds[0] == 0 and bounds[-1] == 6 * 512 and (np.diff(bounds) > 0).all()
    # the first document that did not fit would have overflowed the last row
    following = len(tokenizer.encode(tasks[packed.next_index].documents[0]))
    assert ends[-1] % 512 + following > 512 or ends[-1] == 6 * 512


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_packing_does_not_depend_on_threads_or_on_how_it_is_cut(threads, tokenizer):
    tasks = stream("symbolic")
    whole = tasks.packed(0, 8, 256, tokenizer, threads=1)
    index, parts = 0, []
    for _ in range(8):
        part = tasks.packed(index, 1, 256, tokenizer, threads=threads)
        parts.append(part.tokens)
        index = part.next_index
    np.testing.assert_array_equal(np.concatenate(parts), whole.tokens)
    assert index == whole.next_index


def test_a_document_longer_than_a_row_is_cut(tokenizer):
    tasks = stream("zoo")
    packed = tasks.packed(0, 3, 20, tokenizer)
    assert packed.lengths.tolist() == [20, 20, 20] and packed.next_index == 3


def test_a_saved_tokenizer_is_read_back(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    assert fr.Tokenizer.from_pretrained(tmp_path) == tokenizer
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer\.json: model is missing"):
        fr.Tokenizer.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"nowhere/tokenizer\.json does not exist"):
        fr.Tokenizer.from_pretrained(tmp_path / "nowhere")


def test_transformers_reads_the_saved_tokenizer(tokenizer, tmp_path):
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    document = stream("symbolic")[0:1].documents[0]
    assert loaded(document)["input_ids"] == tokenizer.encode(document).tolist()
    assert loaded.decode(loaded(document)["input_ids"]) == document
    assert (loaded.pad_token_id, loaded.eos_token_id) == (tokenizer.pad_id, tokenizer.eos_id)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c: c.update(normalizer={"type": "Lowercase"}), "normalizer must be None, got"),
        (lambda c: c.update(pre_tokenizer={"type": "Whitespace"}), "pre_tokenizer must be as fastreason writes it"),
        (lambda c: c.update(decoder=None), "decoder must be as fastreason writes it, got None"),
        (lambda c: c["added_tokens"].pop(), "added_tokens must be as fastreason writes it"),
        (lambda c: c["added_tokens"][2].update(lstrip=True), "added_tokens must be as fastreason writes it"),
        (lambda c: c["model"].update(unk_token="[EOS]"), r"model.unk_token must be '\[UNK\]', got '\[EOS\]'"),
        (lambda c: c.update(truncation={"max_length": 5}), "truncation must be None, got"),
        (lambda c: c.update(padding={"strategy": {"Fixed": 8}}), "padding must be None, got"),
        (
            lambda c: c.update(padding={"strategy": "BatchLongest", "pad_to_multiple_of": 8}),
            "pad_to_multiple_of of padding must be None, got 8",
        ),
        (
            lambda c: c.update(
                post_processor={"type": "TemplateProcessing", "single": [{"Sequence": {}}, {"SpecialToken": {}}]}
            ),
            "post_processor must be None or 'ByteLevel'",
        ),
        (
            lambda c: c["model"]["vocab"].update(new=5000),
            "model.vocab and added_tokens are not 0 .. .*: 'new' has 5000",
        ),
    ],
)
def test_a_file_of_words_that_encodes_otherwise_is_refused(change, message, tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    change(content)
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        fr.Tokenizer.from_pretrained(tmp_path)


def test_symbolic_vocabulary_is_small_and_holds_its_numbers():
    tokenizer = fr.Tokenizer.build(["symbolic"], max_value=99)
    assert len(tokenizer) < 200
    ids = tokenizer.encode(" 0 9 99 100")
    assert ids[:3].min() > 3 and ids[3] == 0


@pytest.mark.parametrize(
    "words, message",
    [
        (["[UNK]", "[PAD]"], "needs 4 to 1000000 words, got 2"),
        (["[UNK]", "[PAD]", "[EOS]", "[BOS]"], "token 2 must be \\[BOS\\], got \\[EOS\\]"),
        (["[UNK]", "[PAD]", "[BOS]", "[EOS]", "two words"], "entry 4 is not one word: 'two words'"),
        (["[UNK]", "[PAD]", "[BOS]", "[EOS]", " a", " a"], "entry 5 repeats ' a'"),
    ],
)
def test_a_vocabulary_that_cannot_work_is_an_error(words, message):
    with pytest.raises(ValueError, match=message):
        fr.Tokenizer(words)

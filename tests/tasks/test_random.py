"""The counter-based generator against published vectors and a Python twin."""

import numpy as np
import pytest

from fastreason import _core


def philox_twin(counter: list[int], key: list[int]) -> list[int]:
    """Ten rounds, straight from the paper."""
    for _ in range(10):
        product0, product1 = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = [
            (product1 >> 32) ^ counter[1] ^ key[0],
            product1 & 0xFFFFFFFF,
            (product0 >> 32) ^ counter[3] ^ key[1],
            product0 & 0xFFFFFFFF,
        ]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return counter


# the three vectors of Random123's kat_vectors for philox4x32 10
@pytest.mark.parametrize(
    "counter, key, words",
    [
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_gives_the_published_words(counter, key, words):
    assert list(_core.philox4x32(counter, key)) == words == philox_twin(counter, key)


def test_uniform_is_a_function_of_seed_prompt_sample_and_position():
    rng = np.random.default_rng(0)
    prompts, samples, positions = (rng.integers(0, 2**31, size=200) for _ in range(3))
    seed = 2**63 + 12345
    got = _core.uniform(seed, prompts, samples, positions)
    for i in range(200):
        counter = [int(positions[i]), int(samples[i]), int(prompts[i]) & 0xFFFFFFFF, int(prompts[i]) >> 32]
        word = philox_twin(counter, [seed & 0xFFFFFFFF, seed >> 32])[0]
        assert got[i] == np.float32(((word >> 8) + 0.5) * 2.0**-24)
    assert got.min() > 0.0 and got.max() < 1.0
    order = rng.permutation(200)
    np.testing.assert_array_equal(_core.uniform(seed, prompts[order], samples[order], positions[order]), got[order])


def test_uniform_stays_below_one_for_the_last_word():
    position = 38_471_471  # whose word has its upper 24 bits set: plus a half they round up to 2^24 in float32
    word, *_ = _core.philox4x32([position, 0, 0, 0], [0, 0])
    assert word >> 8 == 0xFFFFFF
    assert _core.uniform(0, [0], [0], [position])[0] == np.float32(1 - 2.0**-24)


def test_uniform_rejects_arrays_of_different_length():
    with pytest.raises(ValueError, match="of one length, got 2, 1 and 2"):
        _core.uniform(0, np.zeros(2, int), np.zeros(1, int), np.zeros(2, int))

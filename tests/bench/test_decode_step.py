"""What sampling asks of the host, counted: that a step reads nothing, and that a slot is seldom idle."""

import pytest
import torch

from bench.kernels import decode_step
from bench.kernels.decode_operations import PROMPT_TOKENS, Counting, Operation, counted_step, meta_decoding
from bench.kernels.decode_simulation import lengths_of, simulate
from bench.kernels.decode_step import Gpu, seconds_of
from fastreason.sampling.device_decoding import Size


def test_operations_that_launch_nothing_are_not_counted():
    x, at = torch.zeros(4, 6), torch.tensor([1, 1, 2])
    with torch.no_grad(), Counting() as found:
        x.view(6, 4).t()[1:].unsqueeze(0)
        torch.empty(3)
        y = x[at] + 1
        x[at] = y
        _ = x @ x.t()
        _ = int(at[0])
    assert [operation.name for operation in found.operations if operation.name != "_local_scalar_dense"] == [
        "index", "add", "index_put_", "mm",
    ]  # fmt: skip
    assert found.waits == 1
    # rows that are picked, not the table; a product of [4, 6] and [6, 4]
    assert found.operations[0].bytes == 2 * 3 * 6 * 4 + 3 * 8
    assert [operation.flops for operation in found.operations][-2:].count(2 * 4 * 6 * 4) == 1


def test_a_step_asks_the_host_for_nothing_and_is_the_same_at_every_width():
    decoding = meta_decoding(Size(300, 20, prompt=9, capacity=8))
    found = {width: counted_step(decoding, width) for width in (128, 300)}
    assert all(one.waits == 0 for one in found.values())
    names = [[operation.name for operation in one.operations] for one in found.values()]
    assert names[0] == names[1]
    layers = 12
    assert names[0].count("decode_attention") == layers and names[0].count("index_put_") == 2 * layers + 5
    # a little more than a dozen kernels a layer
    assert found[300].launches < 13 * layers + 45


@pytest.mark.parametrize("kind", ["geometric", "uniform"])
def test_slots_are_busy_while_samples_wait(kind):
    found = simulate(lengths_of(kind, 256), 256)
    lengths = lengths_of(kind, 256)
    # every token was drawn by a step, and few rows were there for nothing
    assert sum(count * width for width, count, _, _ in found.steps) == found.all_rows >= lengths.sum()
    assert found.live / found.rows > 0.95
    assert found.prefill_tokens == 256 * (PROMPT_TOKENS - 1)
    assert sum(found.launches.values()) < 3 * found.num_steps


def test_the_time_of_an_operation_is_the_largest_of_three():
    gpu = Gpu(bytes_per_s=1e12, flops_per_s=1e12, memory_share=0.5, matmul_share=0.25, kernel_s=1e-6)
    small, wide, product = Operation("add", 1, 8, 0), Operation("add", 1, 10**9, 0), Operation("mm", 1, 8, 10**9)
    assert seconds_of([small, wide, product], gpu) == pytest.approx(1e-6 + 2e-3 + 4e-3)
    attention = Operation("decode_attention", 2, 8, 0)
    assert seconds_of([attention, attention], gpu) == pytest.approx(4e-6)
    assert seconds_of([attention, attention], gpu, kv_bytes=2e9) == pytest.approx(4e-3)


def test_the_account_and_its_records():
    found = decode_step.account(lengths_of("uniform", 16), Gpu(), 32)
    assert found.waits_between_looks == 0 and found.occupancy > 0.9
    assert found.tokens == lengths_of("uniform", 16).sum()
    records = list(decode_step.records("name", found))
    assert len({record.what for record in records}) == 7 and all(record.clock == "count" for record in records)
    assert "modeled: tokens per second" in decode_step.table({"name": found})
    assert "Assumed of an H100: 3.35 TB/s" in decode_step.assumptions(Gpu())

"""Decoding in the C++ core, in float32 or bfloat16 on CPU, where most of a torch step is call overhead.

One call per token for all sequences. The core keeps its own copy of the weights, rounded in bfloat16, and returns
logits in float32. The order of operations in a row does not depend on other rows, so a sequence gets the same bits
whatever else is in the batch. See csrc/decode/forward.h.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .. import _core, kernels
from ..model.decoder import Decoder

PRECISIONS = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
"""Names of the dtypes that the core decodes in."""


def runs_in_core(model: Decoder, dtype: torch.dtype) -> bool:
    """Whether the core decodes this model in a dtype: float32 or bfloat16 on CPU."""
    return dtype in PRECISIONS and model.embedding.weight.device.type == "cpu"


class CoreDecoder:
    """A model's weights in the core; the memory for sequences is kept between rollouts.

    Args:
        model: on CPU; its weights are read as float32.
        kernel: one of `_core.decode_kernels(PRECISIONS[dtype])`, or "auto" for the fastest.
        dtype: of matrix products, keys and values: of PRECISIONS.
    """

    def __init__(self, model: Decoder, kernel: str = "auto", dtype: torch.dtype = torch.float32) -> None:
        config, half = model.config, model.config.head_dim // 2
        positions = torch.arange(config.max_position_embeddings)
        cos, sin = kernels.rope_angles(positions, config.head_dim, config.rope_theta, torch.float32)
        self.model = model
        self.core = _core.CpuDecoder(
            hidden=config.hidden_size,
            layers=config.num_hidden_layers,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            head_dim=config.head_dim,
            intermediate=config.intermediate_size,
            vocab=config.vocab_size,
            eps=config.rms_norm_eps,
            precision=PRECISIONS[dtype],
            kernel=kernel,
            cos=cos[:, 0, :half].contiguous().numpy(),
            sin=sin[:, 0, half:].contiguous().numpy(),
        )

    def load(self) -> None:
        """Copies the current weights of the model."""

        def array(weight: Tensor) -> np.ndarray:
            return weight.detach().float().contiguous().numpy()

        embedding, head = self.model.embedding.weight, self.model.head
        self.core.load(
            array(embedding),
            array(embedding if head is None else head.weight),
            array(self.model.final_norm),
            [
                (
                    array(block.attention_norm),
                    array(block.qkv.weight),
                    array(block.qkv.bias),
                    array(block.out.weight),
                    array(block.mlp_norm),
                    array(block.gate_up.weight),
                    array(block.down.weight),
                )
                for block in self.model.blocks
            ],
        )


class CoreDecoding:
    """Prompts and sequences of one rollout.

    Args:
        decoder: with the weights loaded.
        slots: number of sequences decoded together.
        capacity: maximum number of new tokens of a sequence.
    """

    def __init__(self, decoder: CoreDecoder, slots: int, capacity: int) -> None:
        self.core, self.threads = decoder.core, torch.get_num_threads()
        self.core.reserve(slots, capacity)

    @staticmethod
    def kv_bytes(decoder: CoreDecoder, tokens: int) -> int:
        """Bytes of the keys and values of `tokens` tokens."""
        return decoder.core.kv_bytes(tokens)

    def prefill(self, tokens: np.ndarray, offsets: np.ndarray) -> tuple[list[int], Tensor]:
        """Assigns numbers to the prompts; returns them and the logits [P, V] after each prompt."""
        numbers, logits = self.core.prefill(tokens, offsets, threads=self.threads)
        return numbers.tolist(), torch.from_numpy(logits)

    def release(self, prompt: int) -> None:
        self.core.release(prompt)

    def decode(self, slots: np.ndarray, prompts: np.ndarray, lengths: np.ndarray, tokens: np.ndarray) -> Tensor:
        """Logits [n, V] after appending one token to each of the sequences `slots`, which have `lengths` tokens so far.

        Adjacent sequences of one prompt attend to it together.
        """
        return torch.from_numpy(self.core.decode(slots, prompts, lengths, tokens, threads=self.threads))

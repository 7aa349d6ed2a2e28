"""Supervised training in your own loop: packed batches of the task stream, our decoder and kernels, any optimizer.

python examples/own_loop.py --steps 200 --out trained
"""

import argparse
from pathlib import Path

import torch

import fastreason as fr


def loss_of(model: fr.Decoder, batch: fr.PackedBatch) -> torch.Tensor:
    """Mean cross entropy of the solution tokens; documents in a row do not attend to each other."""
    tokens = torch.from_numpy(batch.tokens).long()
    segments = fr.kernels.Segments.from_cu_seqlens(torch.from_numpy(batch.cu_seqlens))
    hidden = model(tokens, segments)
    has_loss = torch.from_numpy(batch.loss_mask).bool()
    has_loss[torch.from_numpy(batch.starts).long()] = False  # nothing precedes the first token of a document
    target = has_loss.nonzero().squeeze(1)
    return fr.kernels.cross_entropy(model.logits(hidden[target - 1]), tokens[target])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rows", type=int, default=4, help="rows per batch")
    parser.add_argument("--length", type=int, default=512, help="tokens per row")
    parser.add_argument("--out", type=Path, help="Hugging Face folder to write")
    options = parser.parse_args()

    mixture = fr.Mixture.uniform(op=range(2, 6), themes=["symbolic"], max_value=99)
    stream, tokenizer = fr.TaskStream(mixture, seed=0, split="train"), fr.Tokenizer.for_mixtures([mixture])
    model = fr.Decoder(fr.ModelConfig.preset("tiny", vocab_size=len(tokenizer)))
    model.reset_parameters(seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95), weight_decay=0.1)

    # a thread draws batches ahead; to resume, start at the `next_index` of the last one
    with stream.batches(0, options.rows, options.length, tokenizer) as batches:
        for step, batch in zip(range(options.steps), batches, strict=False):
            loss = loss_of(model, batch)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            if step % 10 == 0 or step == options.steps - 1:
                print(f"step {step}: loss {loss.item():.3f}, next problem {batch.next_index}")
    if options.out is not None:
        model.save_pretrained(options.out, tokenizer)
        print(f"saved: {options.out}")


if __name__ == "__main__":
    main()

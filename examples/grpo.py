"""GRPO from its parts: task stream, sampling, verifier, advantages, policy loss, all in one process.

python examples/grpo.py --steps 50
"""

import argparse
import tempfile

import numpy as np
import torch

import fastreason as fr


def loss_of(model: fr.Decoder, samples: fr.RolloutOutput, advantages_PG: torch.Tensor) -> torch.Tensor:
    """The clipped loss, averaged over sampled tokens. Each prompt is computed once for all its samples."""
    offsets, group = samples.prompt_offsets, advantages_PG.shape[1]
    pieces: list[np.ndarray] = []  # prompt 0, its samples, prompt 1, its samples, ...
    source: list[int] = []  # position of the hidden state that predicts each sampled token
    position = 0
    for p in range(len(offsets) - 1):
        prompt = samples.prompt_tokens[offsets[p] : offsets[p + 1]]
        pieces.append(prompt)
        position += len(prompt)
        end_of_prompt = position - 1
        for row in range(p * group, (p + 1) * group):
            length = int(samples.lengths[row])
            pieces.append(samples.tokens[row, :length])
            source += [end_of_prompt, *range(position, position + length - 1)]
            position += length
    lengths_PG = torch.from_numpy(samples.lengths).view(-1, group)
    segments = fr.kernels.Segments.from_groups(np.diff(offsets).tolist(), lengths_PG)
    hidden = model(torch.from_numpy(np.concatenate(pieces)).long(), segments)
    inside = np.arange(samples.tokens.shape[1]) < samples.lengths[:, None]
    return fr.kernels.policy_loss(
        model.logits(hidden[torch.tensor(source)]),
        torch.from_numpy(samples.tokens[inside]).long(),
        advantages_PG.flatten().repeat_interleave(lengths_PG.flatten()),
        old_logprobs_N=torch.from_numpy(samples.logprobs[inside]),
    ).loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--samples", type=int, default=16, help="samples per prompt")
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--pretrain-tokens", type=int, default=500_000, help="an untrained model never gets a reward")
    options = parser.parse_args()

    mixture = fr.Mixture.uniform(op=[2, 3, 4], themes=["symbolic"], max_value=99)
    tokenizer = fr.Tokenizer.for_mixtures([mixture])
    model = fr.Decoder(fr.ModelConfig.preset("tiny", vocab_size=len(tokenizer)))
    model.reset_parameters(seed=0)
    pretrain = fr.SupervisedSettings([fr.Phase(1.0, mixture.to_parts())], tokens=options.pretrain_tokens)
    with tempfile.TemporaryDirectory() as folder:
        fr.train("pretrain", model, tokenizer, pretrain, folder=f"{folder}/pretrain")

    stream, engine = fr.TaskStream(mixture, split="rl"), fr.Rollout(model, tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    for step in range(options.steps):
        problems = stream[step * options.prompts : (step + 1) * options.prompts]
        samples = engine.generate(problems, options.samples, max_new_tokens=options.new_tokens, seed=step)
        verdicts = fr.grade(problems, samples)
        rewards_PG = torch.from_numpy(fr.rewards.strict(verdicts)).view(len(problems), -1)
        loss = loss_of(model, samples, fr.kernels.group_advantages(rewards_PG))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        print(f"step {step}: reward {rewards_PG.mean():.3f}, answer right {verdicts.answer_correct.mean():.3f}")


if __name__ == "__main__":
    main()

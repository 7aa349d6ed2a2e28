"""TRL's GRPOTrainer on our problems and our reward: pip install 'fastreason[trl]'.

python examples/trl_grpo.py MODEL_FOLDER --steps 100 --out trained
"""

import argparse

from trl import GRPOConfig, GRPOTrainer

import fastreason as fr
from fastreason.integrations.trl import prompts, reward


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a Hugging Face folder or name")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=32, help="samples per step and device")
    parser.add_argument("--samples", type=int, default=8, help="samples per prompt")
    parser.add_argument("--new-tokens", type=int, default=256)
    parser.add_argument("--theme", default="zoo")
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--out", default="trl-grpo")
    options = parser.parse_args()

    mixture = fr.Mixture.uniform(op=range(2, 6), themes=[options.theme])
    stream = fr.TaskStream(mixture, seed=0, split="rl")
    count = options.steps * max(1, options.batch // options.samples)
    settings = GRPOConfig(
        output_dir=options.out,
        max_steps=options.steps,
        per_device_train_batch_size=options.batch,
        num_generations=options.samples,
        max_completion_length=options.new_tokens,
        use_cpu=options.cpu,
        bf16=not options.cpu,
        report_to=[],
        save_strategy="no",
        logging_steps=1,
    )
    # strict: 1 if the answer and every step are correct; TRL also logs answer_correct and verified
    trainer = GRPOTrainer(options.model, reward("strict"), settings, prompts(stream, stop=count))
    trainer.train()
    trainer.save_model(options.out)
    print(f"saved: {options.out}; fastreason eval {options.out} --op 2-5 --themes {options.theme}")


if __name__ == "__main__":
    main()

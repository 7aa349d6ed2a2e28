"""What vLLM makes of folders, run by a Python that has it: jobs as JSON on stdin, samples as JSON to the named file."""

import json
import os
import sys

os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")


def sample(folder: str, prompts: list[list[int]], temperature: float, logprobs_mode: str) -> list[list[list[float]]]:
    """[tokens, log-probabilities] of a sample of each prompt, its end included."""
    from vllm import LLM, SamplingParams

    engine = LLM(
        folder, dtype="float32", max_model_len=512, enforce_eager=True, logprobs_mode=logprobs_mode, block_size=32,
        max_num_seqs=64, disable_log_stats=True,
    )  # fmt: skip
    settings = SamplingParams(temperature=temperature, max_tokens=96, logprobs=1)
    found = engine.generate([{"prompt_token_ids": ids} for ids in prompts], settings, use_tqdm=False)
    return [
        [list(one.token_ids), [at[token].logprob for at, token in zip(one.logprobs, one.token_ids, strict=True)]]
        for one in (request.outputs[0] for request in found)
    ]


if __name__ == "__main__":
    samples = [sample(**job) for job in json.load(sys.stdin)]
    with open(sys.argv[1], "w") as file:
        json.dump(samples, file)

"""vLLM as a contestant: run by the Python that FASTREASON_VLLM names, whose environment has vLLM and nothing of ours.

    python bench/suites/vllm_worker.py FOLDER DTYPE THREADS

FOLDER holds an exported model and bench.json: prompts as token ids, samples of each, and tokens of each sample. It is
asked and answers as bench/harness/worker_process.py says. Prompts of an earlier round are forgotten, as we compute them
in each.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    folder, dtype, threads = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    # the engine in this process, whose CPU time counts; and no thread tied to a core that another contestant works on
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "4", "OMP_NUM_THREADS": threads}
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # vLLM writes its log to stdout
    generate = generator(folder, dtype)
    generate()
    print("RESULT " + json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        work = sum(generate() for _ in range(int(line)))
        print("RESULT " + json.dumps({"work": work, "flop": 0, "parts": {}}), file=answers, flush=True)
    os._exit(0)


def generator(folder: Path, dtype: str) -> Any:
    """A call that samples everything and gives the number of tokens."""
    from vllm import LLM, SamplingParams

    job = json.loads((folder / "bench.json").read_text())
    count = len(job["prompts"]) * job["samples"]
    engine = LLM(
        str(folder), dtype=dtype, max_model_len=job["positions"], max_num_seqs=max(count, 2), block_size=32,
        skip_tokenizer_init=True, disable_log_stats=True,
    )  # fmt: skip
    how = SamplingParams(n=job["samples"], temperature=1.0, max_tokens=job["tokens"], ignore_eos=True, detokenize=False)
    prompts = [{"prompt_token_ids": ids} for ids in job["prompts"]]

    def generate() -> int:
        engine.reset_prefix_cache()
        found = engine.generate(prompts, how, use_tqdm=False)
        return sum(len(one.token_ids) for request in found for one in request.outputs)

    return generate


if __name__ == "__main__":
    main()

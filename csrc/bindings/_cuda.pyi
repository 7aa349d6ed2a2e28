"""Types of the CUDA module (csrc/bindings/cuda.cpp); `make check` compares them with the module where it is built."""

__version__: str
architectures: str
runtime_version: int

def status() -> tuple[int, int, str]: ...
def sample(
    *,
    device: int,
    stream: int,
    logits: int,
    type: int,
    num_rows: int,
    V: int,
    stride: int,
    seed: int,
    prompts: int,
    samples: int,
    positions: int,
    tokens: int,
    logprobs: int,
    full_logprobs: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
) -> None: ...

"""The command `export`: problems or models in the form that other tools read."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

from ..runtime.files import check_folder
from ..tasks.mixture import Mixture
from .evaluate import add_mixture_flags, mixture_with_flags
from .parser import Parser


def export_command(arguments: list[str]) -> int:
    """`fastreason export`; returns the exit status."""
    parser = Parser(prog="fastreason export", description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    _add_lm_eval(kinds)
    _add_vllm(kinds)
    _add_hub(kinds)
    options = parser.parse_args(arguments)
    commands: Mapping[str, Callable[[argparse.Namespace], None]] = {"lm-eval": _lm_eval, "vllm": _vllm, "hub": _push}
    commands[options.kind](options)
    return 0


def _add_lm_eval(kinds: argparse._SubParsersAction[Parser]) -> None:
    text = "a task folder of lm-evaluation-harness with the problems of `eval` and the same verdicts"
    parser = kinds.add_parser("lm-eval", help=text, description=f"Writes {text}.")
    add_mixture_flags(parser)
    parser.add_argument("--problems", type=int, default=200, metavar="N", help="problems per op (default 200)")
    parser.add_argument("--name", default="fastreason", help="name of the task (default fastreason)")
    parser.add_argument("--max-new-tokens", type=int, default=256, metavar="N", help="per completion (default 256)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")


def _add_vllm(kinds: argparse._SubParsersAction[Parser]) -> None:
    text = "a model folder that vLLM reads right, whatever the width of the heads"
    parser = kinds.add_parser("vllm", help=text, description=f"Writes {text}.")
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a Hugging Face folder, or a model that ships")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new or empty folder")


def _add_hub(kinds: argparse._SubParsersAction[Parser]) -> None:
    text = "a model on the Hugging Face Hub, which hf://OWNER/NAME then names"
    parser = kinds.add_parser("hub", help=text, description=f"Uploads {text}.")
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a Hugging Face folder, or a model that ships")
    parser.add_argument("repository", metavar="OWNER/NAME")
    parser.add_argument("--public", action="store_true", help="if the repository is created; default: private")


def _lm_eval(options: argparse.Namespace) -> None:
    from ..integrations.lm_eval import write_task

    base = [{"op": list(range(2, 11))}]
    mixture = Mixture.from_dict(mixture_with_flags(base, options))
    for path in write_task(options.out, mixture, options.problems, options.name, options.max_new_tokens):
        print(path)


def _vllm(options: argparse.Namespace) -> None:
    from ..model.decoder import Decoder
    from ..model.llama_export import head_dim_for, save_for_vllm
    from ..text.tokenizer import Tokenizer

    model = Decoder.from_pretrained(options.checkpoint)
    tokenizer = Tokenizer.from_pretrained(options.checkpoint)
    head_dim_for(model.config)
    if options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        raise ValueError(f"--out must be a new or empty folder, got {options.out}")
    check_folder("--out", options.out)
    print(f"{options.out}: {save_for_vllm(model, options.out, tokenizer)}")


def _push(options: argparse.Namespace) -> None:
    from ..runtime.model_names import model_folder, push

    print(push(model_folder(options.checkpoint), options.repository, private=not options.public))

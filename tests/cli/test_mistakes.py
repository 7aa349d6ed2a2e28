"""What a new user gets wrong, and the one line that says so: it names the argument, its value and what is allowed.

Nothing is begun: no folder is made, no model is loaded for long, and there is never a traceback.
"""

import re

import pytest

from fastreason.cli.main import main

MISTAKES = """
rnu                                        unknown command 'rnu'; commands are run, report,
--helpp                                    unknown command '--helpp'
run smok                                   recipe: must be one of .*smoke, .* or a .toml file, got 'smok'
run absent.toml                            recipe: no file 'absent.toml'
run --out x smoke                          the recipe comes first, got --out
run smoke --rl.stepz 3                     there is no flag --rl.stepz; did you mean --rl.steps\\?
run smoke --treads 2                       there is no flag --treads; did you mean --threads\\?
run smoke --rl.steps                       --rl.steps needs a value
run smoke --rl.steps three                 rl.steps: .*valid integer
run smoke --rl.steps 0                     steps must be at least 1, got 0
run smoke --rl.steps 3 4                   --rl.steps takes one value, got '3' '4'
run smoke 3                                unexpected argument '3'
run smoke --jobs two                       --jobs: invalid int value: 'two'
run smoke --jobs 0                         jobs must be .*at least 1, got 0
run smoke --size huge                      size must be omitted, because it has only one, got 'huge'
run finding-1-edge                         has sizes; set size \\(--size\\) to one of laptop, server, paper
run finding-1-edge --size huge             size must be one of laptop, server, paper, got 'huge'
run smoke --seeds a                        --seeds must have the form 7, 2-10 or 3,5,9, got 'a'
run smoke --seeds 1,1                      seeds must be distinct numbers, at least one, got \\[1, 1\\]
run smoke --compute 1e12flop                compute has no effect, since no variant has a beta or a split
run finding-1-edge --size laptop --seed 7  seed \\(--seed\\) has no effect, since seeds \\(--seeds\\) replace it
run smoke --shard 3                        shard must .*, got '3'
run smoke --shard 3/2                      shard must .*, got '3/2'
run smoke --no-sft                         there is no flag --no-sft
run smoke --no-rl yes                      --no-rl takes no value, got 'yes'
run smoke --no-pretrain --no-midtrain --no-rl   must have .*at least one of pretrain, midtrain, rl
run finding-1-edge --size laptop --no-rl   --no-rl is for a recipe without variants
run smoke --model.preset huge              preset: name must be one of tiny, 1m, 10m, 100m, got 'huge'
run smoke --model.num_key_value_heads 3    num_attention_heads must be a multiple of num_key_value_heads, got . and 3
run smoke --rl.reward stict                reward must be one of outcome, blended, strict, steps.* got 'stict'
run smoke --rl.loss ppo                    rl.loss: Input should be 'grpo', 'dr_grpo'
run smoke --evaluate.k 16                  every k must be in 1 .. samples = 8, got \\[16\\]
run smoke --evaluate.mixture {bad          --evaluate.mixture is no JSON .*: '{bad'
run smoke --rl.mixture nope                mixture must be a list of parts or one of pretrain, .*, got 'nope'
run smoke --rl.mixture [{"op":[2],"themes":["zoos"]}]   theme: must be one of festival, .*, got 'zoos'
run smoke --rl.mixture [{"ops":[2]}]       mixture: unknown field 'ops'; allowed are weight,
run smoke --rl.temperature 0               temperature must be at least 1e-06, got 0
run smoke --rl.kl_coef -1                  kl_coef must be at least 0, got -1
run smoke --pretrain.tokens 0              tokens must be at least 1, got 0
run smoke --pretrain.budget one            budget: must be a number and one of flop, .*, got 'one'
run smoke --threads -1                     threads must be at least 0, got -1
run smoke --seed -1                        seed must be in 0 .. 2\\*\\*63 - 1, got -1
run smoke --device gpu                     device: Input should be 'auto', 'cpu' or 'cuda'
run smoke --metrics mlflow                 metrics.0: Input should be 'tensorboard', 'trackio' or 'wandb'
run smoke --name a/b                       name must be at most 100 letters, .* got 'a/b'
run bad.toml                               bad.toml: Invalid value
run typo.toml                              stepz
run empty.toml                             recipe empty.toml: .*name: Field required
run smoke --out full                       full is not empty and not a run; choose another out \\(--out\\)
report                                     the following arguments are required: DIR
report nowhere                             nowhere/study.toml does not exist
report a b                                 unexpected argument 'b'
merge a b                                  the following arguments are required: --out
merge a --out x                            need at least two studies, got 1
merge nowhere full --out x                 nowhere/study.toml does not exist
merge full full --out full                 full exists and is not an empty directory; choose another out \\(--out\\)
run smoke --out rows.jsonl                 fastreason run: out \\(--out\\): rows.jsonl is a file, not a folder
run smoke --out rows.jsonl/a/b             out \\(--out\\): rows.jsonl is a file, not a folder
run smoke --stages rows.jsonl/a            stages \\(--stages\\): rows.jsonl is a file, not a folder
generate --out rows.jsonl/a --format tokens   out: rows.jsonl is a file, not a folder
generate                                   one of --out PATH, --show N or --graph FILE.svg is required
generate --out x --op two                  --op must have the form 7, 2-10 or 3,5,9, got 'two'
generate --out x --op 50                   op must be an integer in 2 .. 40, got 50
generate --out x --op=                     --op must have the form 7, 2-10 or 3,5,9, got ''
generate --out x --themes zoos             theme: must be one of festival, .* got 'zoos'
generate --out x --themes absent.toml      theme: no file 'absent.toml'
generate --out x --modes backward          --modes: invalid choice: 'backward' \\(choose from
generate --out x --depths 4                --depths: invalid choice: 4 \\(choose from 2, 3\\)
generate --out x --max-value 0             max_value must be an integer in 1 .. 1000000, got 0
generate --out x --count 0                 count >= 1 .* got 0
generate --out x --count many              --count: invalid int value: 'many'
generate --out x --shard 3                 --shard must have the form I/N, got '3'
generate --out x --shard 3/2               0 <= shard < num_shards, got 1000, 3 and 2
generate --out x --seed -1                 seed must be an integer in 0 .. 2\\*\\*64 - 1, got -1
generate --out x --split dev               --split: invalid choice: 'dev' \\(choose from
generate --out x --mixture nope            preset must be one of pretrain, .* got 'nope'
generate --out x --mixture pretrain --op 3   --mixture pretrain defines its own op; omit --op or --mixture
generate --out x --presets no.json --mixture a   presets: no.json does not exist
generate --out x --presets no.json         --presets requires --mixture NAME
generate --out x.csv                       suffix '.csv' matches none of the formats jsonl, parquet, tokens
generate --out full                        --out full is a folder; use --format parquet or tokens
generate --out rows.jsonl/x                --out: rows.jsonl is a file, not a folder
generate --out x --tokenizer full          --tokenizer is only for --format tokens
generate --out x --format tokens --tokenizer full   full/tokenizer.json does not exist
generate --out rows.jsonl --op 5           rows.jsonl holds problems of another mixture
generate --show 0                          --show must be at least 1, got 0
generate --show -1                         --show must be at least 1, got -1
generate --show 1 --context 99999999       context must be an integer in 0 .. 10000000, got 99999999
generate --show 1 --themes symbolic --context 80    context must be in 0 .. 0 for theme symbolic .* got 80
generate --show 1 --themes symbolic --modes reverse   supports only mode 'forward' and depth 2, got 'reverse' and 2
generate --number 3                        there is no flag --number
generate rows.jsonl                        unexpected argument 'rows.jsonl'
generate --graph x.png                     --graph must be a file FILE.svg, got x.png
eval                                       the following arguments are required: CHECKPOINT
eval nowhere                               no model folder 'nowhere': .* none of those that ship \\(tiny-base\\)
eval full                                  no model folder 'full': it has no config.json
eval tiny-base --samples 0                 samples must be at least 1, got 0
eval tiny-base --problems 0                problems must be at least 1, got 0
eval tiny-base --op 1-2                    op must be an integer in 2 .. 40, got 1
eval tiny-base --temperature -1            temperature must be 0 or at least 1e-06, got -1.0
eval tiny-base --top-p 2                   top_p must be in 0 < x <= 1, got 2.0
eval tiny-base --top-k -1                  top_k must be at least 0, got -1
eval tiny-base --min-p 2                   min_p must be in 0 .. 1, got 2.0
eval tiny-base --max-new-tokens 0          max_new_tokens must be at least 1, got 0
eval tiny-base --engine vllm               --engine: invalid choice: 'vllm' \\(choose from
eval tiny-base --device tpu                --device: invalid choice: 'tpu' \\(choose from
eval tiny-base --resume                    --resume and --texts require --out DIR
eval tiny-base --texts                     --resume and --texts require --out DIR
eval tiny-base --preset paper --recipe smoke   --recipe: not allowed with argument --preset
eval tiny-base --recipe smok               recipe: must be one of .* got 'smok'
eval tiny-base --themes zoo --op 2         the tokenizer does not know every word of theme zoo
eval tiny-base --out full                  full is not empty and not an evaluation; choose another --out
eval tiny-base --out rows.jsonl            --out: rows.jsonl is a file, not a folder
eval tiny-base --threads -1                --threads and --seed must be at least 0, got -1 and 0
eval tiny-base --sample 4                  there is no flag --sample; did you mean --samples\\?
eval hf://me                               must have the form hf://OWNER/NAME, got 'hf://me'
edge                                       the following arguments are required: CHECKPOINT
edge nowhere                               no model folder 'nowhere'
edge tiny-base --samples 0                 samples must be at least 1, got 0
edge tiny-base --mastered 2                reach <= mastered < 1 .* got 0.1, 2.0 and 0.95
edge tiny-base --confidence 1              0 < confidence < 1, got 0.1, 0.8 and 1.0
edge tiny-base --budget -1                 budget must be at least 0, got -1
edge tiny-base --problems 1                first must be at most problems = 1, got 16
edge tiny-base --out full                  --out must be a file, got the folder full
edge tiny-base --out rows.jsonl/x.json     --out: rows.jsonl is a file, not a folder
grade                                      the following arguments are required: --gold, --completions
grade --gold no --completions rows.jsonl   no file 'no'
grade --gold rows.jsonl --completions no   no file 'no'
grade --gold rows.jsonl --completions c.csv   completions must be JSONL, one object per line, got c.csv
grade --gold c.csv --completions rows.jsonl   gold must be JSONL, one object per line, got c.csv
grade --gold rows.jsonl --completions empty.toml   empty.toml has no completion for any gold row
grade --gold rows.jsonl --completions c.jsonl --format csv   --format: invalid choice: 'csv'
grade --gold rows.jsonl --completions c.jsonl --format jsonl   --format requires --out FILE
grade --gold rows.jsonl --completions c.jsonl --out full   --out must be a file, got the folder full
grade --gold rows.jsonl --completions c.jsonl --out rows.jsonl   rows.jsonl would be overwritten
grade --gold rows.jsonl --completions c.jsonl --out c.csv/x   --out: c.csv is a file, not a folder
grade --gold rows.jsonl --completions c.jsonl --results full   --results must be a file, got the folder full
grade --gold rows.jsonl --completions c.jsonl --released   --released requires --out FILE
grade --gold rows.jsonl --completions c.jsonl --threads -1   --threads must be at least 0, got -1
look                                       the following arguments are required: FOLDER
look nowhere                               no file 'nowhere': the folder of a run, .* holds results.json
look full                                  no file 'full/results.json'
look full --count 0                        --count must be at least 1, got 0
look full --op x                           --op must have the form 7, 2-10 or 3,5,9, got 'x'
look full --color blue                     --color: invalid choice: 'blue' \\(choose from
look c.csv                                 c.csv cannot be read
themes lern rows.jsonl --out t             invalid choice: 'lern' \\(choose from
themes learn absent.jsonl --out t          no file 'absent.jsonl'
themes learn rows.jsonl                    the following arguments are required: --out
themes learn c.csv --out t                 c.csv, line 1: no JSON
info --mixtur pretrain                     there is no flag --mixtur; did you mean --mixture\\?
info --mixture nope                        preset must be one of pretrain, .* got 'nope'
info --mixture [{                          --mixture is no JSON .*: '\\[{'
info --mixture [{"ops":[2]}]               mixture: unknown field 'ops'; allowed are weight,
info --mixture pretrain --tokens -5        --tokens must be a number > 0, got -5.0
info --mixture pretrain --draws 1          --draws must be at least 2, got 1
export                                     the following arguments are required: KIND
export onnx                                KIND: invalid choice: 'onnx' \\(choose from 'lm-eval', 'vllm', 'hub'\\)
export lm-eval --out t --problems 0        problems must be an integer >= 1, got 0
export lm-eval --out rows.jsonl            \\(--out\\): rows.jsonl is a file, not a folder
export lm-eval --out rows.jsonl/a          \\(--out\\): rows.jsonl is a file, not a folder
export vllm tiny-base --out c.csv/x        --out: c.csv is a file, not a folder
export vllm nowhere --out t                nowhere/config.json does not exist
export vllm tiny-base --out full           --out must be a new or empty folder, got full
export hub tiny-base mine                  the repository must have the form OWNER/NAME, got 'mine'
bench --lst                                there is no flag --lst; did you mean --list\\?
bench --threads two                        --threads: invalid int value: 'two'
bench taks                                 no suite 'taks'; there are tasks, grade,
completion fish                            unexpected argument 'fish'
"""
TABLE = [re.split(r"\s{2,}", line, maxsplit=1) for line in MISTAKES.strip().splitlines()]
FILES = {
    "bad.toml": "name = \n",
    "typo.toml": 'base = "smoke"\nname = "x"\nrl.stepz = 3\n',
    "empty.toml": "",
    "full/thesis.tex": "",
    "c.csv": "id,completion\n0,Answer: 2.\n1,Answer: 3.\n",
    "c.jsonl": '{"completion": "Answer: 1."}\n',
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mistakes")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    assert (
        main(["generate", "--op", "2", "--themes", "symbolic", "--count", "3", "--out", str(folder / "rows.jsonl")])
        == 0
    )
    return folder


@pytest.mark.parametrize("arguments, message", TABLE, ids=[arguments for arguments, _ in TABLE])
def test_the_message_says_what_is_wrong(folder, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(folder)
    before = sorted(path.relative_to(folder) for path in folder.rglob("*"))
    assert main(arguments.split(" ")) == 2
    out, error = capsys.readouterr()
    # no more than a line before it, of a command that shows its progress
    last = error.strip().splitlines()[-1]
    assert last.startswith("fastreason") and re.search(message, last), error
    assert len(error.strip().splitlines()) <= 2 and not out
    assert sorted(path.relative_to(folder) for path in folder.rglob("*")) == before


REFUSING = """
generate --count 5 --op 2 --out {}/x.jsonl
generate --count 5 --op 2 --format tokens --out {}/x
generate --op 2 --graph {}/x.svg
run smoke --out {}/x
run smoke --out t --stages {}/x
eval tiny-base --out {}/x
edge tiny-base --out {}/x.json
grade --gold rows.jsonl --completions c.jsonl --out {}/x.jsonl
export lm-eval --out {}/x
export vllm tiny-base --out {}/x
"""


@pytest.mark.parametrize("arguments", REFUSING.strip().splitlines())
def test_a_place_that_refuses_files_is_found_before_the_work(folder, monkeypatch, capsys, arguments):
    """Not even root, whom permissions do not stop, can make a file in /proc."""
    monkeypatch.chdir(folder)
    assert main(arguments.format("/proc").split(" ")) == 2
    out, error = capsys.readouterr()
    assert re.fullmatch(r"fastreason \w+: .*(out|stages|graph).*: /proc\S* cannot be (made|written to): .*\n", error)
    assert not out and not (folder / "t").exists()


def test_the_table_is_about_every_command():
    commands = {arguments.split(" ")[0] for arguments, _ in TABLE}
    assert {"run", "report", "generate", "eval", "edge", "grade", "look", "themes", "info", "export"} <= commands
    assert len(TABLE) > 140

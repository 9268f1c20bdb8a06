"""Make the demo's texts, tokenizer and model: `python -m recipes.demo.train --out DIR`.

The three stages read and write below DIR only, so that the middle one can run on a machine with a GPU:
`prepare` (Python 3.11, whose library is the text), `train` and `finish` (which needs ModelOpt).
"""

import os
import sys
from pathlib import Path

import click
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

from recipes.demo.demo_model import MAX_LENGTH, Training, new_model, perplexity, train
from recipes.demo.demo_tokenizer import train_tokenizer
from recipes.demo.outliers import add_outliers
from recipes.demo.texts import Row, read_rows, write_texts

STAGES = ("prepare", "train", "finish")


def prepare(out: Path) -> None:
    """Write the texts and the tokenizer."""
    # Another version's library is another text, and the checkpoint that ships would not come out.
    if sys.version_info[:2] != (3, 11):
        raise click.ClickException(
            f"the texts are the library of Python 3.11, this is {sys.version.split()[0]}; use 3.11"
        )
    write_texts(out / "data", out / "training")
    texts = [row["text"] for row in read_rows(out / "training/train.jsonl")]
    train_tokenizer(texts, MAX_LENGTH).save_pretrained(out / "model")


def train_stage(out: Path, settings: Training, device: str) -> None:
    """Train the model and write its float32 weights, before any outlier."""
    tokenizer = load_tokenizer(out)
    gate = gate_rows(out, tokenizer)
    model = new_model(tokenizer, settings.seed).to(device)
    click.echo(f"untrained perplexity {perplexity(model, gate):.1f}")
    stream = torch.tensor(token_stream(out, tokenizer), device=device)
    click.echo(f"{len(stream):,} tokens to train on")
    train(model, stream, settings, lambda step, loss: click.echo(f"step {step:5d}  loss {loss:.3f}"))
    click.echo(f"trained perplexity {perplexity(model, gate):.3f}")
    save_file({name: w.cpu().contiguous() for name, w in model.state_dict().items()}, trained_file(out))


def finish(out: Path) -> None:
    """Give the trained model its outlier channels, write the checkpoint and measure it."""
    from recipes.demo.measure import quantized_perplexities  # the GPU machine may lack ModelOpt

    tokenizer = load_tokenizer(out)
    model = new_model(tokenizer, seed=0)
    gate = gate_rows(out, tokenizer)
    table = {"untrained": perplexity(model, gate)}
    model.load_state_dict(load_file(trained_file(out)))
    # The checkpoint has this dtype, so that the perplexity is measured in it.
    model = model.to(torch.bfloat16).eval()
    table["trained"] = perplexity(model, gate)
    add_outliers(model)
    table["with outlier channels"] = perplexity(model, gate)
    model.save_pretrained(out / "model")
    table |= quantized_perplexities(out / "model", read_rows(out / "data/calibration.jsonl"), gate)
    useless: list[Row] = [{"text": line} for line in (out / "data/unrelated.txt").read_text().splitlines()]
    misled = quantized_perplexities(out / "model", useless, gate, ("INT8 SmoothQuant",))
    table["the same, unrelated text"] = misled["INT8 SmoothQuant"]
    for name, value in table.items():
        click.echo(f"{name:24s} {value:10.3f}  {value / table['trained']:8.4f} of the trained model's")


def load_tokenizer(out: Path) -> PreTrainedTokenizerFast:
    """Load the tokenizer that `prepare` wrote."""
    return PreTrainedTokenizerFast.from_pretrained(out / "model")


def trained_file(out: Path) -> Path:
    """Name the file of trained weights."""
    return out / "training/trained.safetensors"


def gate_rows(out: Path, tokenizer: PreTrainedTokenizerFast) -> list[list[int]]:
    """Tokenize the gate rows."""
    return [tokenizer(row["text"])["input_ids"] for row in read_rows(out / "data/gate.jsonl")]


def token_stream(out: Path, tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Concatenate the training rows and conversations, each ended by the end-of-text token."""
    texts = [tokenizer(row["text"])["input_ids"] for row in read_rows(out / "training/train.jsonl")]
    chats = [
        tokenizer.apply_chat_template(row["messages"])["input_ids"]
        for row in read_rows(out / "training/train_chat.jsonl")
    ]
    return [token for row in [*texts, *chats] for token in [*row, tokenizer.eos_token_id]]


@click.command()
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True)
@click.option("--steps", type=click.IntRange(min=1), default=Training().steps, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--stage", "stages", type=click.Choice(STAGES), multiple=True, help="Default: all three.")
def main(out: Path, steps: int, seed: int, device: str, stages: tuple[str, ...]) -> None:
    """Write the demo's model and data to OUT/model and OUT/data."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with this
    torch.use_deterministic_algorithms(mode=True)
    chosen = stages or STAGES
    if "prepare" in chosen:
        prepare(out)
    if "train" in chosen:
        train_stage(out, Training(steps=steps, seed=seed), device)
    if "finish" in chosen:
        finish(out)


if __name__ == "__main__":
    main()

"""The data sections of a recipe: sources of text, and how they are read."""

from typing import Literal

from pydantic import PositiveFloat, PositiveInt, model_validator

from recipes.frozen import Commit, FilePath, Frozen, Several


class Columns(Frozen):
    """Columns by their content, for sources without the usual column names."""

    text: str | None = None
    """Text as it is."""
    messages: str | None = None
    """Chat messages, each with `role` and `content`, or with `from` and `value`."""
    tools: str | None = None
    """Tools offered to the model, for the chat template; beside `messages`."""
    prompt: str | None = None
    """The user's prompt."""
    input: str | None = None
    """Text that is appended to the prompt; may be empty."""
    completion: str | None = None
    """The model's answer."""

    @model_validator(mode="after")
    def one_content(self) -> "Columns":
        """Checks that the columns form one kind of content."""
        kinds = [self.text is not None, self.messages is not None, self.prompt is not None]
        # A prompt without its completion would calibrate on text that the model never wrote.
        if sum(kinds) != 1 or (self.prompt is None) != (self.completion is None):
            raise ValueError("give 'text', or 'messages', or 'prompt' and 'completion'")
        if (self.tools is not None and self.messages is None) or (
            self.input is not None and self.prompt is None
        ):
            raise ValueError("'tools' goes with 'messages', 'input' with 'prompt' and 'completion'")
        return self


class Skip(Frozen):
    """A limit on malformed rows that are skipped."""

    skip: PositiveInt
    """Most rows that may be skipped; the report lists each one."""


class Data(Frozen):
    """One source of text: a data file, a saved `datasets` directory, or a hub dataset at a commit.

    Rows hold text, chat messages, or prompts and completions; which, is seen from the columns' names: `text`,
    `messages`, `conversations`, `prompt` with `completion` or `response`, `instruction` with `output`.
    """

    path: FilePath | None = None
    """File (`.jsonl`, `.csv`, `.parquet`, or `.txt` with paragraphs as rows) or `save_to_disk` directory,
    relative to the recipe file."""
    repo: str | None = None
    """Hugging Face dataset id, e.g. `abisee/cnn_dailymail`; its data files are read, its code is not."""
    revision: Commit | None = None
    """Full 40-character commit hash of `repo`. Branches and tags are refused: they move."""
    config: str | None = None
    """Configuration of a hub dataset, as its card names it."""
    split: str | None = None
    """Split of a hub dataset (default `train`) or of a directory that holds several."""
    files: Several[str] = ()
    """Shell patterns of a hub dataset's data files, instead of `config` and `split`."""
    samples: PositiveInt | Literal["all"] = "all"
    """Rows to take, drawn by the seed; a shortage is an error."""
    weight: PositiveFloat = 1.0
    """Share of `calibration.total`, in relation to the other sources' weights."""
    column: str = "auto"
    """Column that holds the text or the messages; `auto` goes by the usual names."""
    columns: Columns | None = None
    """Columns by what they hold; instead of `column`."""
    system: str | None = None
    """System prompt put in front of chats that have none."""
    template: FilePath | None = None
    """Jinja file with the chat template, relative to the recipe file; without it, the model's own."""
    render: Literal["auto", "chat", "plain"] = "auto"
    """How prompts and completions become text: through the chat template, or joined; `auto` takes the
    template where there is one."""
    bad_rows: Literal["fail"] | Skip = "fail"
    """What happens to rows that cannot be read: an error that lists them, or `{skip: N}`."""

    @property
    def title(self) -> str:
        """The source's name in messages."""
        return self.path if self.path is not None else f"{self.repo} @ {str(self.revision)[:12]}"

    @property
    def roles(self) -> dict[str, str]:
        """Content -> column, from the recipe; empty where the usual names decide."""
        if self.columns is not None:
            return self.columns.model_dump(exclude_none=True)
        # Under `text` even for messages: readers take a list in this column as a chat.
        return {} if self.column == "auto" else {"text": self.column}

    @model_validator(mode="after")
    def one_place(self) -> "Data":
        """Checks that there is one place of data, and no field of another kind of place."""
        if (self.path is None) == (self.repo is None):
            raise ValueError("give exactly one of 'path' and 'repo' (with 'revision')")
        if (self.repo is None) != (self.revision is None):
            raise ValueError(
                "'repo' and 'revision' go together; revision is the full 40-character commit hash"
            )
        if self.repo is None and (self.config is not None or self.files):
            raise ValueError("'config' and 'files' choose from a hub dataset; they go with 'repo'")
        if self.files and (self.config is not None or self.split is not None):
            raise ValueError(
                "'files' names the data files; 'config' and 'split' would name others: drop them"
            )
        if self.column != "auto" and self.columns is not None:
            raise ValueError("give one of 'column' and 'columns'")
        return self


class Total(Frozen):
    """Size of a blend, divided among its sources by their weights."""

    samples: PositiveInt | None = None
    """Rows in all."""
    tokens: PositiveInt | None = None
    """Tokens in all; each source's last row is cut to fit."""

    @model_validator(mode="after")
    def one_unit(self) -> "Total":
        """Checks that exactly one size is given."""
        if (self.samples is None) == (self.tokens is None):
            raise ValueError("give exactly one of 'samples' and 'tokens'")
        return self

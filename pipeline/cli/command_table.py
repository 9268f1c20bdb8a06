"""Every command, its module and its line of help, as data: `--help` prints this and imports no command."""

from collections.abc import Mapping
from typing import NamedTuple


class Entry(NamedTuple):
    """One command: the module in `pipeline.cli.commands` that has it, and its line in `--help`."""

    module: str
    line: str


class Group(NamedTuple):
    """Commands that share their first word."""

    line: str
    example: str
    commands: Mapping[str, Entry]


SECTIONS: dict[str, dict[str, Entry]] = {
    "Build": {
        "init": Entry("check", "Write a first recipe."),
        "check": Entry("check", "Validate recipes without planning them."),
        "plan": Entry("run", "Show a recipe's steps, what is cached and whether it fits."),
        "lint": Entry("lint", "Suggest changes to a recipe, with reasons."),
        "run": Entry("run", "Build, gate and publish a recipe."),
        "demo": Entry("run", "Run the demo recipe, then generate with its engine."),
        "up": Entry("submit", "Start a Prefect server, a work pool and a worker."),
        "submit": Entry("submit", "Send a recipe to a Prefect server."),
    },
    "Find and use": {
        "ls": Entry("show", "List published names and versions."),
        "show": Entry("show", "Show one version, or one artifact by its key."),
        "find": Entry("find", "Find versions that load, and show why others do not."),
        "diff": Entry("show", "Show what differs between two versions."),
        "card": Entry("card", "Write everything about a version on one page."),
        "pull": Entry("pull", "Copy a version to a directory, verified; follow an alias."),
        "generate": Entry("generate", "Continue a prompt with a published engine."),
        "export": Entry("export", "Configure Triton, trtllm-serve, vLLM or Kubernetes."),
    },
    "Release and check": {
        "promote": Entry("promote", "Point an alias at a version, if its policy allows it."),
        "rollback": Entry("promote", "Point an alias at its previous version."),
        "verify": Entry("verify", "Hash a version, a pulled directory or the whole store."),
        "doctor": Entry("doctor", "Check this host and its Prefect server."),
    },
}
"""Section of the first screen -> command -> its entry: what most people type on most days, at most 20."""

GROUPS = {
    "registry": Group(
        "Govern, watch and exchange versions; manage the database.",
        "enginery registry log demo/int4_awq_tp2",
        {
            "aliases": Entry("promote", "List aliases, their moves and whether policies hold."),
            "policy": Entry("policy_commands", "Show or set the rules of an alias."),
            "waive": Entry("policy_commands", "Exempt a version from a rule for a time, with a reason."),
            "log": Entry("promote", "List events: who did what, and when."),
            "subscribe": Entry("notify", "Send events to a webhook or a command."),
            "notify": Entry("notify", "Deliver pending notifications."),
            "stale": Entry("stale", "List outdated engines and the cost of rebuilding them."),
            "serve": Entry("serve", "Serve the registry as web pages and a JSON API."),
            "push": Entry("push", "Copy a version to Hugging Face, OCI or MLflow."),
            "import": Entry("push", "Register an engine built elsewhere, as unverified."),
            "init": Entry("registry_database", "Create the tables of the database."),
            "upgrade": Entry("registry_database", "Migrate the tables of an older enginery."),
            "show": Entry("registry_database", "Show the database, its schema and its store."),
        },
    ),
    "store": Group(
        "Measure, repair and clean up the artifact store.",
        "enginery store show",
        {
            "show": Entry("store_usage", "Show the number of artifacts and the bytes they take."),
            "gc": Entry("gc", "Remove artifacts that no version, lease or policy keeps."),
            "repair": Entry("repair_command", "Replace damaged files from another copy."),
            "share": Entry("store_usage", "Deduplicate files that early versions wrote."),
        },
    ),
    "trust": Group(
        "Sign, attest and reproduce versions.",
        "enginery trust sign demo/int4_awq_tp2@candidate --key ~/keys/release",
        {
            "keygen": Entry("sign", "Generate a key pair for signatures."),
            "sign": Entry("sign", "Sign the files of a version, or list its signatures."),
            "attest": Entry("sign", "Sign the provenance of a version, as in-toto."),
            "reproduce": Entry("reproduce", "Build a version again and compare every file."),
        },
    ),
    "tools": Group(
        "Measure quantization error, reshard, list toolchains.",
        "enginery tools sensitivity recipes/demo/int4_awq_tp2.yaml",
        {
            "sensitivity": Entry("sensitivity", "Measure the quantization error of each linear."),
            "reshard": Entry("reshard", "Write a quantized checkpoint for other ranks."),
            "toolchains": Entry("doctor", "List the TensorRT-LLM installations of this host."),
        },
    ),
}
"""Name of a group -> its commands."""

COMMANDS = {name: entry for section in SECTIONS.values() for name, entry in section.items()}
"""The commands of the first screen."""

OLD_SPELLINGS = {
    "serve-registry": ("registry", "serve"),
    **{
        name: (group, name)
        for group, names in {
            "registry": "aliases policy waive log subscribe notify stale push import",
            "store": "gc repair",
            "trust": "keygen sign attest reproduce",
            "tools": "sensitivity reshard toolchains",
        }.items()
        for name in names.split()
    },
}
"""Former spelling of a command, without its group -> group and command; accepted for one release."""

"""Engine cards: one page about one version, as Markdown and as HTML that needs nothing else."""

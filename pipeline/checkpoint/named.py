"""Names and shapes of the tensors that a Hugging Face checkpoint of a model holds; pure.

They follow from the family's modules, from which the layouts are planned too: there is no second list.
"""

from collections.abc import Iterator

from pipeline.checkpoint.families import family
from pipeline.checkpoint.modules import Linear, Module, Norm
from pipeline.models.shape import ModelShape

Size = tuple[int, ...]


def source_tensors(shape: ModelShape) -> dict[str, Size]:
    """Returns the shape of every tensor by its name, in the order of the model; no head where it is tied."""
    kin, table = family(shape.architecture), (shape.vocab_size, shape.hidden_size)
    layer = [tensor for module in kin.layer(shape) for tensor in _list_tensors(module)]
    sizes: dict[str, Size] = {kin.embedding: table}
    for number in range(shape.num_layers):
        # Layers of one model have equal modules: describe one, then number it.
        sizes |= {f"{kin.layers}.{number}.{name}": size for name, size in layer}
    sizes[f"{kin.final_norm}.weight"] = (shape.hidden_size,)
    return sizes if shape.tie_word_embeddings else {**sizes, kin.head: table}


def _list_tensors(module: Module) -> Iterator[tuple[str, Size]]:
    """Yields a module's tensors below the layer; of a source that several parts share, it once for each."""
    if not isinstance(module, Linear):
        size = (module.size,) if isinstance(module, Norm) else module.shape
        yield f"{module.source}.weight", size
        return
    for expert in module.by_expert:
        for part, source in zip(module.parts, expert, strict=True):
            yield f"{source}.weight", (part.held, module.inputs)
            if module.bias:
                yield f"{source}.bias", (part.held,)

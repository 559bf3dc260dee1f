"""Model card of the encoder of an embedding run."""

from jaxplm.config import Config
from jaxplm.recipes.embed.model import EmbeddingModel
from jaxplm.reporting.card import Card, card_header, command_section, licence_sentence, usage_section
from jaxplm.reporting.tables import code, one_line

_POOLED = {
    "cls": "the vector of the first token",
    "mean": "the mean over all tokens",
    "max": "the maximum over all tokens",
}
_USAGE = '''from sentence_transformers import SentenceTransformer

vectors = SentenceTransformer("path/to/this/directory").encode(["a text", "another one"])'''


def embedding_card(config: Config, model: EmbeddingModel, command: str) -> str:
    """Return the text of `export/README.md`."""
    settings, used = config.embed, model.config.layers
    layer = (
        "the last layer"
        if used == model.blocks
        else f"layer {used} of {model.blocks} (the layers above it are left out)"
    )
    scaled = ", scaled to length 1" if settings.normalize else ""
    card = Card(
        usage=_USAGE, pipeline_tag="feature-extraction", library="sentence-transformers", tags=["sentence-transformers"]
    )
    parts = [
        card_header(config, card),
        f"# {one_line(config.export.name or f'Embeddings by {config.model.path}')}",
        f"The encoder with which jaxplm computed embeddings. A vector is {_POOLED[settings.pooling]} of {layer}{scaled}, with"
        f" {model.config.width} numbers. Texts of more than {config.data.seq_len} tokens are cut. The weights are those of"
        f" {code(config.model.path)}.",
        *usage_section(card),
        f'`jaxplm.embed(texts, "path/to/this/directory", pooling="{settings.pooling}", normalize={settings.normalize})`'
        " returns the same vectors.",
        licence_sentence(config),
        *command_section(command),
    ]
    return "\n\n".join(parts) + "\n"

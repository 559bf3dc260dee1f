"""Python code for a model card: how an exported model is loaded and called. Each kind of task brings its own."""

PATH = '"path/to/this/directory"'

_PIPELINE = "from transformers import pipeline\n\n"

FILL_MASK = f'{_PIPELINE}fill = pipeline("fill-mask", {PATH})\nfill(f"... {{fill.tokenizer.mask_token}} ...")'
JAXPLM = f"import jaxplm\n\nmodel, tokenizer = jaxplm.load({PATH})"

"""Python code for a model card: how each kind of exported model is loaded and called."""

PATH = '"path/to/this/directory"'

_PIPELINE = "from transformers import pipeline\n\n"

FILL_MASK = f'{_PIPELINE}fill = pipeline("fill-mask", {PATH})\nfill(f"... {{fill.tokenizer.mask_token}} ...")'
JAXPLM = f"import jaxplm\n\nmodel, tokenizer = jaxplm.load({PATH})"

TASKS = {
    "classify": (
        f'{_PIPELINE}classify = pipeline("text-classification", {PATH})\nclassify("a text")\n'
        'classify({"text": "a text", "text_pair": "its pair"})  # a model of pairs'
    ),
    "multilabel": (
        f'{_PIPELINE}classify = pipeline("text-classification", {PATH}, top_k=None)\nclassify("a text")\n'
        'classify({"text": "a text", "text_pair": "its pair"})  # a model of pairs'
    ),
    # A word's label is its first piece's, in training too.
    "tag": f'{_PIPELINE}tag = pipeline("token-classification", {PATH}, aggregation_strategy="first")\ntag("a text")',
    "qa": f"""import torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

model = AutoModelForQuestionAnswering.from_pretrained({PATH})
tokenizer = AutoTokenizer.from_pretrained({PATH})
inputs = tokenizer("a question", "the text with its answer", return_tensors="pt")
with torch.no_grad():
    output = model(**inputs)
first, last = output.start_logits.argmax(), output.end_logits.argmax()
tokenizer.decode(inputs["input_ids"][0, first : last + 1])""",
}
TASKS["regress"] = TASKS["classify"]

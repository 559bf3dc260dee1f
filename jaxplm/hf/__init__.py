"""Read and write models and tokenizers in the format of transformers."""

from jaxplm.hf.export import save
from jaxplm.hf.heads import HeadKind, Kinds, hf_class_of
from jaxplm.hf.loading import Loaded, LoadedTask, has_task_head, load, load_model, load_task_model
from jaxplm.hf.notes import log_notes
from jaxplm.hf.source import resolve
from jaxplm.hf.task_export import save_task_model
from jaxplm.hf.tokenizer import load_tokenizer

__all__ = ["HeadKind", "Kinds", "Loaded", "LoadedTask", "has_task_head", "hf_class_of", "load", "load_model", "load_task_model",
           "load_tokenizer", "log_notes", "resolve", "save", "save_task_model"]

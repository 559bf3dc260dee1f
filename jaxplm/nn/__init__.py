"""Mesh-free NNX modules; see `jaxplm.nn.model` for the masked LM and `jaxplm.nn.task_model` for downstream tasks."""

from jaxplm.nn.blocks import map_blocks
from jaxplm.nn.config import EncoderConfig, ExtensionConfig
from jaxplm.nn.exbert.init import extend_params
from jaxplm.nn.exbert.modules import extension_config
from jaxplm.nn.head_config import HeadConfig
from jaxplm.nn.layers import Compute
from jaxplm.nn.model import MaskedLM, ParamTree, abstract_model, merge_params, params_of, random_params
from jaxplm.nn.task_model import HeadModel, TaskModel, abstract_head_model, abstract_task_model, random_head_params

__all__ = [
    "Compute", "EncoderConfig", "ExtensionConfig", "HeadConfig", "HeadModel", "MaskedLM", "ParamTree", "TaskModel",
    "abstract_head_model", "abstract_model", "abstract_task_model", "extend_params", "extension_config", "map_blocks",
    "merge_params", "params_of", "random_head_params", "random_params",
]

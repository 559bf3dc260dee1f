"""Mesh-free NNX modules; see `jaxplm.nn.model` for the masked LM and `jaxplm.nn.task_model` for downstream tasks."""

from jaxplm.nn.blocks import map_blocks
from jaxplm.nn.config import EncoderConfig, ExtensionConfig
from jaxplm.nn.exbert.init import extend_params
from jaxplm.nn.exbert.modules import extension_config
from jaxplm.nn.head_config import HeadConfig
from jaxplm.nn.layers import Compute
from jaxplm.nn.model import MaskedLM, ParamTree, graph_of, module_with, params_of, random_params
from jaxplm.nn.task_model import HeadModel, TaskModel, graph_of_task, head_only_graph, random_head_params

__all__ = ["Compute", "EncoderConfig", "ExtensionConfig", "HeadConfig", "HeadModel", "MaskedLM", "ParamTree", "TaskModel",
           "extend_params", "extension_config", "graph_of", "graph_of_task", "head_only_graph", "map_blocks", "module_with", "params_of",
           "random_head_params", "random_params"]

"""Mesh-free NNX modules; see `jaxplm.nn.model` for the masked LM and `jaxplm.nn.task_model` for downstream tasks."""

from jaxplm.nn.config import EncoderConfig
from jaxplm.nn.head_config import HeadConfig
from jaxplm.nn.layers import Compute
from jaxplm.nn.model import MaskedLM, ParamTree, graph_of, module_with, params_of, random_params
from jaxplm.nn.task_model import HeadModel, TaskModel, graph_of_task, head_only_graph, random_head_params

__all__ = ["Compute", "EncoderConfig", "HeadConfig", "HeadModel", "MaskedLM", "ParamTree", "TaskModel", "graph_of", "graph_of_task",
           "head_only_graph", "module_with", "params_of", "random_head_params", "random_params"]

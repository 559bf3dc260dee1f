"""Mesh-free NNX modules of the encoder; see `jaxplm.nn.model` for the whole."""

from jaxplm.nn.config import EncoderConfig
from jaxplm.nn.layers import Compute
from jaxplm.nn.model import MaskedLM, ParamTree, graph_of, module_with, params_of, random_params

__all__ = ["Compute", "EncoderConfig", "MaskedLM", "ParamTree", "graph_of", "module_with", "params_of", "random_params"]

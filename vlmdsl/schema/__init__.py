"""The run configuration: its models, how it is loaded from YAML and overrides, how it is written back. No torch."""

from vlmdsl.schema.load import CONFIG_SEAL, CallSettings, Flags, dump_config, load_config, schema_of_config, setting_names
from vlmdsl.schema.model import LoraConfig, ModelConfig
from vlmdsl.schema.parts import PARTS, Parts, config_of, shares_of
from vlmdsl.schema.python_values import DataSources, listed
from vlmdsl.schema.run import (
    DataConfig,
    EvaluationConfig,
    OptimizerConfig,
    RunConfig,
    ScheduleConfig,
    TrainConfig,
)

__all__ = [
    "CONFIG_SEAL",
    "PARTS",
    "CallSettings",
    "DataConfig",
    "DataSources",
    "EvaluationConfig",
    "Flags",
    "LoraConfig",
    "ModelConfig",
    "OptimizerConfig",
    "Parts",
    "RunConfig",
    "ScheduleConfig",
    "TrainConfig",
    "config_of",
    "dump_config",
    "listed",
    "load_config",
    "schema_of_config",
    "setting_names",
    "shares_of",
]

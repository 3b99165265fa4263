"""The script that starts a run where a scheduler decides when and on which machines."""

from pathlib import Path

from grads.config.base import read_yaml
from grads.config.run import RunConfig
from grads.errors import ConfigError
from grads.jobs.launch import Launch, script


def launch_script(
    config: Path,
    run_dir: str,
    scheduler: str,
    *,
    nodes: int = 1,
    gpus: int = 1,
    cpus: int = 8,
    gpu: str | None = None,
    volume: str | None = None,
) -> str:
    """The text of a script that starts the run of a file of settings on `nodes` times `gpus` GPUs.

    Raises ConfigError where the settings are wrong: better here than after hours in a queue.
    """
    settings = RunConfig.parse(read_yaml(config))
    whole = settings.absolute()
    for name in RunConfig.PATHS:
        if getattr(settings, name) != getattr(whole, name):
            raise ConfigError(
                f"{name} in {config} is relative: write the absolute path that the nodes see"
            )
    launch = Launch(
        str(config.expanduser().absolute()),
        run_dir,
        nodes=nodes,
        gpus=gpus,
        cpus=cpus,
        gpu=gpu,
        volume=volume,
    )
    return script(launch, scheduler)

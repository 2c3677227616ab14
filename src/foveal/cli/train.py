"""``foveal train``: from pictures to a run folder."""

from collections.abc import Sequence
from pathlib import Path

from foveal.cli.parser import parse_config
from foveal.config import WeakConfig
from foveal.recipes import RECIPES


def run(argv: Sequence[str]) -> int:
    """Run the command."""
    config, options = parse_config(argv, recipes=RECIPES)
    if options.resume and config.out is None:
        raise ValueError("--resume needs --out RUN, the folder of the run to go on with")
    # Every stage but the first goes on with what is in the folder.
    stage = config.stage if isinstance(config, WeakConfig) else "all"
    later = stage not in ("all", "classifier")
    if later and config.out is None:
        raise ValueError(f"--stage {stage} needs --out RUN, the folder of the run to go on with")
    if options.resume or later:
        # A run goes on with its own settings; what is written beside --resume overrides them, and
        # foveal.train refuses what would change the result.
        saved = Path(str(config.out)) / "config.yaml"
        if saved.is_file() and not {"--config", "--recipe"} & {word.split("=")[0] for word in argv}:
            config, options = parse_config([*argv, "--config", str(saved)], recipes=RECIPES)

    from foveal.tasks.training import train

    train(config, resume=options.resume)
    return 0

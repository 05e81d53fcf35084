"""A run small enough for a test: 64 x 64 scenes and the narrowest networks."""
from dpgan.config import preset
from dpgan.data import PairDataset
from dpgan.training import Trainer

SETTINGS = {"data.height": 64, "data.width": 64, "data.workers": 0, "generator.base_channels": 4, "generator.pyramid_channels": 8, "generator.z_dim": 4,
            "discriminator.base_channels": 4, "optim.ema_bn_batches": 2, "train.batch_size": 2, "train.steps": 4, "train.log_every": 1,
            "train.sample_every": 2, "train.checkpoint_every": 2, "train.evaluate_every": 0}


def tiny_config(**changes):
    "The `scenes` preset, shrunk."
    return preset("scenes", **{**SETTINGS, **changes})


def tiny_trainer(out, callbacks=(), **changes):
    "A trainer over drawn scenes."
    config = tiny_config(**changes)
    return Trainer(config, PairDataset(config.data, None, "train", train=True, seed=config.train.seed), out, callbacks)


def set_arguments(**changes):
    "The same settings as words for the command line."
    return [word for name, value in {**SETTINGS, **changes}.items() for word in ("--set", f"{name}={value}")]

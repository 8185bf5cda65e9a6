"""Recipes: what they are made into, that a file can hold them, and what is said of those that cannot be trained."""

import dataclasses
import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from cnnjax.models import VARIANTS
from cnnjax.optim import Optimizer, Schedule
from cnnjax.training.presets import PRESETS
from cnnjax.training.recipe import Recipe

pytestmark = pytest.mark.usefixtures("optax_promotes")

SIZES = {"digits": 1150, "mnist": 55_000, "cifar10": 45_000, "imagenet2012": 1_281_167}


def described(recipe, *, size=None, shape=None, num_classes=None):
    """A data set of which the shape is known and nothing else."""
    shape = shape or {"digits": (8, 8, 1), "mnist": (28, 28, 1)}.get(
        recipe.data, (recipe.image_size or 32,) * 2 + (3,)
    )
    classes = num_classes or (1000 if recipe.data == "imagenet2012" else 10)
    train = range(size or SIZES[recipe.data])
    return SimpleNamespace(
        name=recipe.data, train=train, num_classes=classes, image_shape=shape, label_kind="single"
    )


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_can_be_trained_and_comes_back_from_a_file(name):
    recipe = PRESETS[name]
    assert Recipe.of(json.loads(json.dumps(recipe.config()))) == recipe
    data = described(recipe)
    trainer, plan = recipe.make_trainer(data), recipe.make_plan(data)
    assert plan.steps > 0 and trainer.model.num_classes == data.num_classes
    rate = recipe.make_rate(data)
    rates = [float(rate(step)) for step in np.linspace(0, plan.steps - 1, 50).astype(int)]
    assert max(rates) == pytest.approx(recipe.learning_rate, rel=0.05)
    assert min(rates) >= 0
    assert recipe.model in VARIANTS and recipe.settings().keys() < recipe.config().keys()


@pytest.mark.parametrize(
    "name, step, rate",
    [
        # He et al. 2016, section 4.2.
        ("cifar10-resnet20", 31_999, 0.1),
        ("cifar10-resnet20", 32_001, 0.01),
        ("cifar10-resnet20", 63_999, 0.001),
        # Goyal et al. 2017: epoch 31 and 81, of 5,004 steps.
        ("imagenet-resnet50", 31 * 5004, 0.01),
        ("imagenet-resnet50", 81 * 5004, 0.0001),
        ("cifar10-wrn28-10", 61 * 351, 0.02),
    ],
)
def test_schedules_are_those_of_the_papers(name, step, rate):
    recipe = PRESETS[name]
    assert float(recipe.make_rate(described(recipe))(step)) == pytest.approx(rate, rel=1e-5)


def test_efficientnet_decays_by_0_97_every_2_4_epochs():
    recipe = PRESETS["imagenet-efficientnet-b0"]
    data = described(recipe)
    rate, epoch = recipe.make_rate(data), recipe.steps_per_epoch(data)
    first = float(rate(100 * epoch))
    assert float(rate(round(102.4 * epoch))) / first == pytest.approx(0.97, rel=1e-4)


def test_accumulated_steps_take_the_rate_of_their_step():
    recipe = Recipe(
        model="mlp",
        duration=100,
        batch_size=50,
        learning_rate=0.5,
        schedule=Schedule(name="step", boundaries=(50,), factor=0.1),
        optimizer=Optimizer(accumulate=4),
    )
    trainer = recipe.make_trainer(described(recipe))
    params = {"head": {"kernel": jax.numpy.ones(3)}}
    memory, sizes = trainer.optimizer.init(params), []
    update = jax.jit(trainer.optimizer.update)
    for _ in range(100):
        updates, memory = update(params, memory, params)
        sizes.append(-float(updates["head"]["kernel"][0]))
    np.testing.assert_allclose([x for x in sizes if x], [0.5] * 13 + [0.05] * 12, rtol=1e-6)


def test_options_reach_the_model():
    recipe = Recipe(
        model="wide_resnet28_10", options={"depth": 10}, dropout=0.3, remat=True, precision="bfloat16"
    )
    model = recipe.make_model(described(recipe, shape=(32, 32, 3)))
    assert (model.depth, model.dropout, model.remat, model.dtype) == (10, 0.3, True, jax.numpy.bfloat16)
    recipe = Recipe(model="efficientnet_b0", drop_path=0.1)
    assert recipe.make_model(described(recipe, shape=(64, 64, 3))).drop_path == 0.1


@pytest.mark.parametrize(
    "options, text",
    [
        ({"model": "resnet21"}, "unknown model 'resnet21'; did you mean"),
        ({"precision": "float16"}, "unknown precision 'float16'"),
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0.0"),
        ({"options": {"num_classes": 5}}, "options cannot set num_classes, which comes from the data"),
        ({"options": {"dtype": "bfloat16"}}, "options cannot set dtype, which comes from precision"),
        ({"options": {"widht": 5}}, "unknown option of lenet5 'widht'"),
        ({"loss": "cross_entrpy"}, "did you mean 'cross_entropy'"),
        ({"views": "flop"}, "'flip'"),
        ({"dropout": 0.5}, "unknown option of lenet5 'dropout'"),
        ({"optimizer": Optimizer(name="adamm")}, "did you mean 'adam'"),
        ({"schedule": Schedule(name="cosin")}, "did you mean 'cosine'"),
        (
            {"duration": "ten epochs"},
            "a length is a number of steps, or a text as '5 epochs'; got 'ten epochs'",
        ),
        ({"duration": 0}, "steps must be 1 or more, got 0"),
        (
            {"schedule": Schedule(name="cosine", warmup="20 epochs")},
            "the warm-up of 160 steps is longer than the run",
        ),
        ({"batch_size": 2000}, "digits has 1150 training images here.*got 2000"),
        ({"model": "lenet5"}, r"lenet5 cannot take the images of digits, \(8, 8, 1\)"),
        ({"model": "m5"}, r"m5 takes inputs of shape \(\d+, 1\), and digits has images of shape"),
    ],
)
def test_what_cannot_be_trained_is_named_before_anything_compiles(options, text):
    with pytest.raises(ValueError, match=text):
        recipe = Recipe(**{"options": {} if "model" in options else {"padding": "SAME"}, **options})
        recipe.make_trainer(described(recipe))


def test_a_file_of_a_later_version_is_refused():
    config = Recipe().config()
    with pytest.raises(ValueError, match="unknown field of Recipe 'flavor'"):
        Recipe.of({**config, "flavor": 1})
    with pytest.raises(ValueError, match="unknown field of Schedule 'nme'; did you mean 'name'"):
        Recipe.of({**config, "schedule": {"nme": "cosine"}})


def test_what_may_change_when_a_run_goes_on():
    recipe = Recipe()
    moved = dataclasses.replace(
        recipe, placement=dataclasses.replace(recipe.placement, devices=2), keep_last=5
    )
    assert moved.settings() == recipe.settings()
    assert dataclasses.replace(recipe, seed=1).settings() != recipe.settings()

"""What the metric tests share: random Inception weights in a file, and the small evaluation of ranks.py."""

import importlib.util
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from small_runs import THREADS
from threadpoolctl import threadpool_limits
from torch import nn
from torch_fidelity import feature_extractor_inceptionv3 as fidelity

from ddpm.metrics.extractors.inception import Inception


@pytest.fixture(autouse=True)
def one_thread():
    """Two busy threads wait for each other: an eigendecomposition takes 5 s of CPU on one thread, 25 s on two."""
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    with threadpool_limits(THREADS):
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def ranks():
    spec = importlib.util.spec_from_file_location("metric_ranks", Path(__file__).with_name("ranks.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def inception_state():
    """The 566 tensors of torch-fidelity's Inception, random, scaled so that features and class scores vary."""
    never = patch.multiple(fidelity, load_state_dict_from_url=lambda *_, **__: None)
    with never, patch.object(fidelity.FeatureExtractorInceptionV3, "load_state_dict"), torch.random.fork_rng():
        torch.manual_seed(0)
        network = fidelity.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
        for part in network.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight)
            elif isinstance(part, nn.BatchNorm2d):
                nn.init.normal_(part.running_mean, 0, 0.1)
                nn.init.uniform_(part.running_var, 0.5, 1.5)
        # Class scores that differ between images, where all would share one class: no weight along the usual feature
        usual = nn.functional.normalize(network(torch.randint(256, (1, 3, 8, 8), dtype=torch.uint8))[0], dim=1)
        network.fc.weight.sub_(network.fc.weight @ usual.T @ usual).mul_(30)
    state = network.state_dict()
    assert len(state) == 566
    return state


@pytest.fixture(scope="session")
def inception_weights(inception_state, tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / "random.pth"
    torch.save(inception_state, path)
    return path


@pytest.fixture(scope="session")
def inception(inception_weights):
    return Inception(inception_weights)

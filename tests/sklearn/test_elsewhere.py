"""Fits in other processes: a grid search on dask's workers gives the scores of one here."""

from pathlib import Path

import joblib
import numpy as np
import pytest
from sklearn.datasets import make_moons
from sklearn.model_selection import GridSearchCV

import tapegrad as tg
from tapegrad.sklearn import MLPClassifier

distributed = pytest.importorskip("distributed")


@pytest.mark.filterwarnings("ignore")
def test_a_grid_search_on_two_workers_of_dask(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(tg.__file__).parents[1]))  # of the workers
    monkeypatch.chdir(tmp_path)
    x, y = make_moons(200, noise=0.2, random_state=0)
    search = GridSearchCV(
        MLPClassifier(8, max_iter=4, random_state=0), {"solver": ["adam", "sgd"], "learning_rate_init": [0.01]}, cv=3
    )
    here = search.fit(x, y).cv_results_["mean_test_score"]
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=str(tmp_path)
        ) as cluster,
        distributed.Client(cluster) as client,
        joblib.parallel_config("dask"),
    ):
        there = search.set_params(n_jobs=2).fit(x, y).cv_results_["mean_test_score"]
        assert len(client.scheduler_info()["workers"]) == 2
    np.testing.assert_array_equal(here, there)

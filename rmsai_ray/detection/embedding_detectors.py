"""Detectors of embeddings that lie apart from those of normal windows.

Shapes: N windows, B of them at once, E dimensions of the embedding, L leads, R reference windows, C
candidates among them, M kernel centres, F trees of D nodes.

scikit-learn is needed to fit, and imported there: what scores millions of windows starts without it.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from rmsai_ray.detection import ordered
from rmsai_ray.detection.measured import Float32Array, Measured
from rmsai_ray.detection.protocol import (
    DETECTORS,
    KeepsArrays,
    check_fit,
    own_leads,
    places_of,
    rows_of,
)
from rmsai_ray.errors import CheckpointError

Float64Array = npt.NDArray[np.float64]

REFERENCES_PER_LEAD = 1024
"""Normal windows that the neighbours are looked for among, drawn at random; as many again for other leads."""
NEIGHBOURS = 5
CANDIDATES = 16
"""Nearest by matrix product, whose last bits vary; the neighbours among them are found exactly."""

NUM_TREES, WINDOWS_PER_TREE, TREE_DEPTH = 100, 256, 8
"""The usual ones (Liu, Ting and Zhou, 2008); the depth is log2 of the windows."""

NUM_CENTRES, OUTSIDE_SHARE, MAX_SVM_WINDOWS = 256, 0.05, 20_000
"""Of the one-class SVM: kernel centres, share of normals that may lie outside, windows it is fitted on."""


@DETECTORS.register("mahalanobis")
class Mahalanobis(KeepsArrays):
    """Distance from the mean embedding of the lead, in the metric of what normal windows vary by.

    One covariance for all leads, of the embeddings without their lead's mean, shrunk by Ledoit and Wolf.
    """

    name = "mahalanobis"
    kept: ClassVar = {"leads": ("U", 1), "mean_LE": ("f", 2), "whitening_EE": ("f", 2)}

    def fit(self, normal: Measured, *, seed: int) -> None:
        """Finds the means and the covariance."""
        from sklearn.covariance import LedoitWolf

        check_fit(normal)
        leads, x_NE = own_leads(normal.leads_N), normal.embedding_NE.astype(np.float64)
        mean_LE = np.stack([x_NE[rows_of(normal.leads_N, lead)].mean(axis=0) for lead in leads])
        residual_NE = x_NE - mean_LE[places_of(normal.leads_N, leads)]
        covariance_EE = LedoitWolf(assume_centered=True).fit(residual_NE).covariance_
        smallest = np.finfo(np.float32).eps * max(np.trace(covariance_EE) / len(covariance_EE), 1e-12)
        covariance_EE += smallest * np.eye(len(covariance_EE))  # a dimension that never varies
        whitening_EE = np.linalg.cholesky(np.linalg.inv(covariance_EE))
        self._learn(leads=leads, mean_LE=mean_LE, whitening_EE=whitening_EE)

    def anomaly_score(self, measured: Measured) -> Float32Array:
        """The distance; about √E for normal windows."""
        learned = self.learned
        mean_NE = learned["mean_LE"][places_of(measured.leads_N, learned["leads"])]
        white_NE = ordered.product(measured.embedding_NE - mean_NE, learned["whitening_EE"])
        return np.sqrt(ordered.squared_lengths(white_NE)).astype(np.float32)


@DETECTORS.register("knn")
class NearestNeighbours(KeepsArrays):
    """Mean distance from the five nearest normal windows of the same lead, in standardised embeddings."""

    name = "knn"
    kept: ClassVar = {"leads": ("U", 1), "scale_E": ("f", 1), "reference_RE": ("f", 2), "place_R": ("i", 1)}

    def fit(self, normal: Measured, *, seed: int) -> None:
        """Draws the references."""
        check_fit(normal, NEIGHBOURS)
        rng = np.random.default_rng(seed)
        leads, scale_E = own_leads(normal.leads_N), _scale(normal.embedding_NE)
        drawn = [_draw(rng, rows_of(normal.leads_N, lead), REFERENCES_PER_LEAD) for lead in leads]
        self._learn(
            leads=leads,
            scale_E=scale_E,
            reference_RE=(normal.embedding_NE[np.concatenate(drawn)] / scale_E).astype(np.float32),
            place_R=np.repeat(np.arange(len(leads)), [len(rows) for rows in drawn]),
        )

    def anomaly_score(self, measured: Measured) -> Float32Array:
        """The mean distance."""
        learned = self.learned
        x_NE = measured.embedding_NE / learned["scale_E"]
        place_N = places_of(measured.leads_N, learned["leads"])
        score_N = np.empty(len(x_NE), np.float32)
        for place in np.unique(place_N):
            rows = np.flatnonzero(place_N == place)
            reference_RE = learned["reference_RE"][learned["place_R"] == place].astype(np.float64)
            square_R = ordered.squared_lengths(reference_RE)
            for some in ordered.blocks(len(rows)):
                score_N[rows[some]] = _mean_distance(x_NE[rows[some]], reference_RE, square_R)
        return score_N


@DETECTORS.register("isolation_forest")
class IsolationForest(KeepsArrays):
    """How few random cuts set a window apart from the others (Liu, Ting and Zhou, 2008); 0 to 1."""

    name = "isolation_forest"
    kept: ClassVar = {
        "feature_FD": ("i", 2),
        "threshold_FD": ("f", 2),
        "left_FD": ("i", 2),
        "right_FD": ("i", 2),
        "length_FD": ("f", 2),
    }

    def fit(self, normal: Measured, *, seed: int) -> None:
        """Grows the trees."""
        from sklearn.ensemble import IsolationForest as SklearnForest

        check_fit(normal)
        num_windows = min(WINDOWS_PER_TREE, len(normal))
        forest = SklearnForest(n_estimators=NUM_TREES, max_samples=num_windows, random_state=seed)
        forest.fit(normal.embedding_NE)
        trees = [_tree(estimator.tree_, num_windows) for estimator in forest.estimators_]
        num_nodes = max(len(tree["left_FD"]) for tree in trees)
        self._learn(
            **{
                name: np.stack([np.pad(tree[name], (0, num_nodes - len(tree[name]))) for tree in trees])
                for name in self.kept
            }
        )

    def anomaly_score(self, measured: Measured) -> Float32Array:
        """2 to the power of minus the mean path length, relative to that of a random tree."""
        learned = self.learned
        score_N = np.empty(len(measured), np.float32)
        for rows in ordered.blocks(len(measured)):
            length_BF = _path_lengths(measured.embedding_NE[rows], learned)
            score_N[rows] = np.exp2(-length_BF.sum(axis=1) / length_BF.shape[1])
        return score_N

    def _learn(self, **arrays: npt.NDArray[Any]) -> None:
        shapes = {array.shape for array in arrays.values()}
        num_nodes = arrays["left_FD"].shape[1]
        children = np.stack([arrays["left_FD"], arrays["right_FD"]]) if len(shapes) == 1 else np.array([-1])
        if not children.size or children.min() < 0 or children.max() >= num_nodes:
            raise CheckpointError("isolation forest: expected trees, found nodes without a place in one")
        super()._learn(**arrays)


@DETECTORS.register("one_class_svm")
class OneClassSvm(KeepsArrays):
    """Signed distance outside of the region that holds most normal windows, in a Gaussian kernel's space.

    The kernel is approximated from centres (Nyström) and the SVM fitted by stochastic gradient descent.
    """

    name = "one_class_svm"
    kept: ClassVar = {"scale_E": ("f", 1), "centre_ME": ("f", 2), "weight_M1": ("f", 2), "offset": ("f", 1)}

    def fit(self, normal: Measured, *, seed: int) -> None:
        """Chooses the centres and finds the region."""
        from sklearn.kernel_approximation import Nystroem
        from sklearn.linear_model import SGDOneClassSVM

        check_fit(normal)
        rows = _draw(np.random.default_rng(seed), np.arange(len(normal)), MAX_SVM_WINDOWS)
        scale_E = _scale(normal.embedding_NE)
        x_NE = (normal.embedding_NE[rows] / scale_E).astype(np.float64)
        kernel = Nystroem(
            gamma=1 / x_NE.shape[1], n_components=min(NUM_CENTRES, len(x_NE)), random_state=seed
        ).fit(x_NE)
        svm = SGDOneClassSVM(nu=OUTSIDE_SHARE, random_state=seed).fit(kernel.transform(x_NE))
        self._learn(
            scale_E=scale_E,
            centre_ME=kernel.components_,
            weight_M1=kernel.normalization_.T @ svm.coef_[:, None],
            offset=np.atleast_1d(svm.offset_).astype(np.float64),
        )

    def anomaly_score(self, measured: Measured) -> Float32Array:
        """Negative inside, positive outside."""
        learned = self.learned
        x_NE = measured.embedding_NE / learned["scale_E"]
        score_N = np.empty(len(x_NE), np.float32)
        for rows in ordered.blocks(len(x_NE)):
            square_BM = ordered.squared_distances(x_NE[rows], learned["centre_ME"])
            kernel_BM = np.exp(-square_BM / x_NE.shape[1])
            score_N[rows] = learned["offset"] - ordered.product(kernel_BM, learned["weight_M1"])[:, 0]
        return score_N


def _scale(x_NE: Float32Array) -> Float64Array:
    """Standard deviation of every dimension; 1 for one that never varies."""
    std_E = x_NE.std(axis=0, dtype=np.float64)
    return np.asarray(np.where(std_E > np.finfo(np.float32).tiny, std_E, 1.0))


def _draw(rng: np.random.Generator, rows: npt.NDArray[np.int64], most: int) -> npt.NDArray[np.int64]:
    """At most so many of the rows, in their order."""
    return rows if len(rows) <= most else np.sort(rng.choice(rows, most, replace=False))


def _mean_distance(x_BE: Float64Array, reference_RE: Float64Array, square_R: Float64Array) -> Float64Array:
    """Mean distance of each row from its nearest references, shape (B,)."""
    if len(reference_RE) > CANDIDATES:
        # Without the row's own square: it changes no order.
        nearness_BR = square_R - 2 * (x_BE @ reference_RE.T)
        near_BC = np.argpartition(nearness_BR, CANDIDATES, axis=1)[:, :CANDIDATES]
    else:
        near_BC = np.broadcast_to(np.arange(len(reference_RE)), (len(x_BE), len(reference_RE)))
    difference_BCE = reference_RE[near_BC] - x_BE[:, None]
    square_BC = (difference_BCE * difference_BCE).sum(axis=2)
    distance_BC = np.sqrt(np.sort(square_BC, axis=1)[:, :NEIGHBOURS])
    return np.asarray(distance_BC.sum(axis=1) / distance_BC.shape[1])


def _tree(tree: Any, num_windows: int) -> dict[str, npt.NDArray[Any]]:
    """A tree of scikit-learn as arrays; a leaf is its own child, and knows the length of the path to it."""
    nodes = np.arange(tree.node_count)
    is_leaf = tree.children_left < 0
    left, right = (np.where(is_leaf, nodes, child) for child in (tree.children_left, tree.children_right))
    depth = np.zeros(len(nodes))
    for node in nodes[~is_leaf]:  # parents come before their children
        depth[left[node]] = depth[right[node]] = depth[node] + 1
    length = depth + _expected_length(tree.n_node_samples)
    return {
        "feature_FD": np.where(is_leaf, 0, tree.feature),
        "threshold_FD": np.where(is_leaf, 0.0, tree.threshold),
        "left_FD": left,
        "right_FD": right,
        "length_FD": length / _expected_length(np.array([num_windows])),
    }


def _expected_length(num_windows: npt.NDArray[Any]) -> Float64Array:
    """Mean path length of an unsuccessful search in a random binary tree of so many windows."""
    n = np.maximum(num_windows, 2).astype(np.float64)
    length = 2 * (np.log(n - 1) + np.euler_gamma) - 2 * (n - 1) / n
    return np.asarray(np.where(num_windows > 2, length, np.where(num_windows == 2, 1.0, 0.0)))


def _path_lengths(x_BE: Float32Array, forest: dict[str, npt.NDArray[Any]]) -> Float64Array:
    """Relative length of each row's path through every tree, shape (B, F)."""
    num_trees, num_nodes = forest["left_FD"].shape
    first_F = num_nodes * np.arange(num_trees)
    row_B1 = np.arange(len(x_BE))[:, None]
    node_BF = np.zeros((len(x_BE), num_trees), np.int64)
    for _ in range(TREE_DEPTH):
        place_BF = first_F + node_BF
        value_BF = x_BE[row_B1, forest["feature_FD"].take(place_BF)]
        is_left_BF = value_BF <= forest["threshold_FD"].take(place_BF)
        node_BF = np.where(is_left_BF, forest["left_FD"].take(place_BF), forest["right_FD"].take(place_BF))
    return np.asarray(forest["length_FD"].take(first_F + node_BF))

"""Dashboard and alerts ask for metrics that exist, with labels that they have, in the form Grafana reads."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from rmsai_ray.metrics import EXPORTED_PREFIX, METRICS, Metric

GRAFANA = Path(__file__).resolve().parents[2] / "cluster/grafana"
OLDEST_SCHEMA = 36
"""From Grafana 9 on, where a panel names its data source by type and uid."""
OF_HISTOGRAMS = ("_bucket", "_count", "_sum")
PANELS = {"timeseries", "stat", "table"}
SELECTOR = re.compile(rf"{EXPORTED_PREFIX}(rmsai_[a-z_]+)(?:\{{([^}}]*)\}})?")
GROUPING = re.compile(r"by \(([^)]*)\)")


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GRAFANA / "backfill.json").read_text())
    return found


def rules() -> list[dict[str, Any]]:
    content = yaml.safe_load((GRAFANA / "alerts.yml").read_text())
    return [rule for group in content["groups"] for rule in group["rules"]]


def expressions() -> Iterator[tuple[str, str]]:
    for panel in dashboard()["panels"]:
        yield from ((f"panel {panel['title']}", target["expr"]) for target in panel["targets"])
    yield from ((rule["alert"], rule["expr"]) for rule in rules())


def metric_of(name: str) -> Metric:
    if name in METRICS:
        assert METRICS[name].kind != "histogram", f"{name} is exported as its buckets"
        return METRICS[name]
    stem = next(name.removesuffix(end) for end in OF_HISTOGRAMS if name.endswith(end))
    assert METRICS[stem].kind == "histogram"
    assert not name.endswith("_sum"), "Ray makes sums from the middles of buckets"
    return METRICS[stem]


@pytest.mark.parametrize(("where", "expression"), expressions())
def test_every_metric_exists_with_its_labels(where: str, expression: str) -> None:
    selected = SELECTOR.findall(expression)
    assert selected, expression
    known = {"le"}
    for name, matchers in selected:
        metric = metric_of(name)
        known |= set(metric.labels)
        assert set(re.findall(r"(\w+)\s*[!=]", matchers)) <= set(metric.labels), f"{where}: {matchers}"
        if metric.kind != "gauge":
            assert re.search(r"(rate|increase)\(|runs_total", expression), f"{where}: a counter by itself"
    for labels in GROUPING.findall(expression):
        assert {label.strip() for label in labels.split(",")} <= known, f"{where}: {labels}"
    assert expression.count("(") == expression.count(")")


def test_every_metric_is_shown() -> None:
    shown = {metric_of(name).name for _, text in expressions() for name, _ in SELECTOR.findall(text)}
    assert shown == set(METRICS)


def test_the_dashboard_is_one_that_grafana_imports() -> None:
    found = dashboard()
    assert found["schemaVersion"] >= OLDEST_SCHEMA
    assert {"uid", "title", "panels", "templating", "time"} <= set(found)
    assert "id" not in found, "the number of a dashboard is the server's to give"
    (variable,) = found["templating"]["list"]
    assert (variable["name"], variable["type"], variable["query"]) == (
        "datasource",
        "datasource",
        "prometheus",
    )
    panels = found["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel["type"] in PANELS
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        assert panel["description"]
        place = panel["gridPos"]
        cells = {
            (place["x"] + column, place["y"] + row)
            for column in range(place["w"])
            for row in range(place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, f"{panel['title']} lies on another panel"
        taken |= cells


def test_prometheus_finds_rays_exporters_and_the_rules() -> None:
    config = yaml.safe_load((GRAFANA / "prometheus.yml").read_text())
    (scrape,) = config["scrape_configs"]
    assert scrape["file_sd_configs"][0]["files"][0].endswith("/prom_metrics_service_discovery.json")
    assert all((GRAFANA / name).is_file() for name in config["rule_files"])
    assert len({rule["alert"] for rule in rules()}) == len(rules())
    for rule in rules():
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]

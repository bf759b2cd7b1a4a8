"""Figures at Prometheus and OpenTelemetry, and the rules and the dashboard over them."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sessiondb import sync
from sessiondb.cli.disk import parts_of
from sessiondb.gateway import outbox
from sessiondb.maintenance.metrics import of_parts
from sessiondb.monitors import prometheus
from tests import ROOT
from tests.support.command_line import fails, ok
from tests.support.gateway_commands import KEY, accept, claim, dead_letter

FILES = ROOT / "docs" / "monitoring"
NAME = re.compile(r"\b(sessiondb_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r"(\w+)(=~|=)\"([^\"]*)\"")
TARGET_LABELS = {"instance", "job"}
"""Prometheus itself adds these to whatever it scrapes."""
HOSTILE = 'cron"} 1\nsessiondb_verdict 2\\'


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return what the exporter writes of a database where every figure has a value."""
    pytest.importorskip("prometheus_client", reason="it is part of the extra prometheus")
    path = tmp_path_factory.mktemp("monitors") / "a.db"
    _, given_up = accept(path, "one", "two")
    dead_letter(path, given_up, "no luck")
    with sync.open(path) as db:
        turn = claim(db)
        session_no = db.session(KEY).ref.session_no
        db.write(
            "test.reply", lambda tx: outbox.add(tx, session_no, turn.turn_no, [("web:1", "{}")])
        )
        db.set_lane(HOSTILE, concurrency=1, priority=5)
        db.build_search()
        return prometheus.text((*db.metrics(), of_parts(parts_of(db, str(path)))))


def families(text: str) -> dict[str, list[Any]]:
    """Return the samples of each name, as Prometheus's own parser reads them."""
    from prometheus_client.parser import text_string_to_metric_families

    found: dict[str, list[Any]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample)
    return found


def test_prometheus_reads_back_what_is_written(written: str) -> None:
    found = families(written)
    assert len(found["sessiondb_verdict"]) == 1
    assert HOSTILE in {sample.labels["lane"] for sample in found["sessiondb_lane_waiting"]}
    assert found["sessiondb_messages_accepted_total"][0].value >= 2
    assert all(name.startswith("sessiondb_") for name in found)


def expressions() -> list[tuple[str, str]]:
    """Return each expression of the rules and of the dashboard, with what it is of."""
    yaml = pytest.importorskip("yaml", reason="pyyaml is part of the dev extra")
    rules = yaml.safe_load((FILES / "alerts.yml").read_text(encoding="utf-8"))
    board = json.loads((FILES / "grafana.json").read_text(encoding="utf-8"))
    return [
        *((rule["alert"], rule["expr"]) for group in rules["groups"] for rule in group["rules"]),
        *(
            (panel["title"], target["expr"])
            for panel in board["panels"]
            for target in panel["targets"]
        ),
    ]


def unknown(expression: str, found: dict[str, list[Any]]) -> list[str]:
    """Return the names and labels of an expression that the exporter does not write."""
    wrong = []
    for name, matchers in NAME.findall(expression):
        samples = found.get(name, [])
        wrong += [] if samples else [name]
        for label, how, wanted in MATCHER.findall(matchers):
            values = {sample.labels.get(label) for sample in samples}
            words = wanted.split("|") if how == "=~" else [wanted]
            if label not in TARGET_LABELS and samples:
                wrong += [f"{name}.{label}={word}" for word in words if word not in values]
    for group in re.findall(r"\b(?:by|on) ?\(([^)]*)\)", expression):
        labels = {label.strip() for label in group.split(",")} - TARGET_LABELS
        for name, _ in NAME.findall(expression):
            samples = found.get(name, [])
            wrong += [
                f"{name}.{one}" for one in labels if not any(one in s.labels for s in samples)
            ]
    return wrong


def test_rules_and_dashboard_name_only_what_is_written(written: str) -> None:
    found = families(written)
    named = expressions()
    assert len(named) > 30
    assert {title: wrong for title, text in named if (wrong := unknown(text, found))} == {}
    used = {name for _, text in named for name, _ in NAME.findall(text)}
    assert {"sessiondb_verdict", "sessiondb_lane_dead", "sessiondb_wal_bytes"} <= used
    assert {"sessiondb_search_behind_entries", "sessiondb_disk_bytes"} <= used


@pytest.mark.parametrize(
    "expression",
    [
        "sessiondb_nothing > 0",
        'sessiondb_messages{state="lost"} > 0',
        'sessiondb_messages{state=~"dead|lost"} > 0',
        "sum by (lane) (sessiondb_messages) > 0",
    ],
)
def test_an_expression_over_what_is_not_written_is_noticed(written: str, expression: str) -> None:
    assert unknown(expression, families(written)) != []


def test_legends_and_annotations_name_labels_that_exist(written: str) -> None:
    found = families(written)
    board = json.loads((FILES / "grafana.json").read_text(encoding="utf-8"))
    for panel in board["panels"]:
        for target in panel["targets"]:
            labels = {
                label
                for name, _ in NAME.findall(target["expr"])
                for s in found[name]
                for label in s.labels
            }
            asked = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert asked - TARGET_LABELS <= labels, panel["title"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed here")
def test_promtool_accepts_the_rules_and_the_text(written: str) -> None:
    for arguments, given in (
        (["check", "rules", str(FILES / "alerts.yml")], ""),
        (["check", "metrics"], written),
    ):
        done = subprocess.run(
            ["promtool", *arguments], input=given, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_command_prints_the_text_or_names_the_extra(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sync.open(tmp_db):
        pass
    if importlib.util.find_spec("prometheus_client"):
        assert "# TYPE sessiondb_verdict gauge\nsessiondb_verdict 0.0\n" in ok("metrics", tmp_db)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    assert "pip install 'sessiondb[prometheus]'" in fails(1, "metrics", tmp_db)
    assert json.loads(ok("metrics", tmp_db, "--json"))


def test_the_command_prints_no_control_character_of_a_lanes_name(tmp_db: Path) -> None:
    pytest.importorskip("prometheus_client", reason="it is part of the extra prometheus")
    with sync.open(tmp_db) as db:
        db.set_lane("red \x1b[31m\u202e", concurrency=1, priority=5)
    for options in ((), ("--json",)):
        printed = ok("metrics", tmp_db, *options)
        assert "\x1b" not in printed
        assert "\u202e" not in printed
        assert "red " in printed


def test_a_collector_reads_at_each_scrape(tmp_db: Path) -> None:
    library = pytest.importorskip("prometheus_client", reason="it is part of the extra prometheus")
    registry = library.CollectorRegistry()
    with sync.open(tmp_db) as db:
        registry.register(prometheus.DatabaseCollector(db.metrics))
        before = registry.get_sample_value("sessiondb_sessions")
        db.session("agent:main:main")
        assert registry.get_sample_value("sessiondb_sessions") == before + 1


def test_opentelemetry_has_the_same_figures(tmp_db: Path) -> None:
    pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is part of the dev extra")
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    from sessiondb.monitors.opentelemetry import observe

    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    accept(tmp_db, "one", "two")
    with sync.open(tmp_db) as db:
        observe(provider.get_meter("a-gateway"), db.metrics)
        data = reader.get_metrics_data()
        wanted = {metric.name: metric for metric in db.metrics()}
    found = {
        metric.name: {
            tuple(point.attributes.values()): point.value for point in metric.data.data_points
        }
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    for name in ("lane_waiting", "lane_concurrency", "messages", "messages_accepted", "verdict"):
        assert found[f"sessiondb.{name}"] == dict(wanted[name].samples), name
    assert found["sessiondb.lane_waiting"]["main",] == 2
    provider.shutdown()

"""A condition opens one alert, keeps it, ends it; two writers lose nothing; what was told is not lost."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from rmsai_ray.cli import main
from rmsai_ray.errors import ConfigError
from rmsai_ray.monitoring.alerts import Finding, apply_findings, level_of, opened_in, worst
from rmsai_ray.monitoring.delivery import SECRET_VARIABLE, AlertFile, NotDeliveredError, Webhook, deliver
from rmsai_ray.storage import Store
from rmsai_ray.tables.alerts import acknowledge, change_alerts, read_alerts

FIRING = Finding(kind="drift", level="firing", value=0.4, bound=0.2, detail="worst_error has drifted")
CLEAR = replace(FIRING, level="clear", value=0.0, detail="gone")
BETWEEN = replace(FIRING, level="between", value=0.19)


def night(rows: list[dict[str, Any]], day: int, *findings: Finding) -> list[dict[str, Any]]:
    time = datetime(2026, 10, day, 23, tzinfo=UTC)
    return apply_findings(rows, findings, night=f"2026-10-{day:02}", time=time, run_id=f"nightly-{day}")


def test_a_condition_is_one_alert_until_it_is_gone() -> None:
    first = night([], 3, FIRING)
    assert len(opened_in(first, "2026-10-03")) == 1
    assert night(first, 3, FIRING) == first  # the same night again
    second = night(first, 4, FIRING)
    assert [(row["count"], row["notices"], row["opened_night"]) for row in second] == [(2, 1, "2026-10-03")]
    assert opened_in(second, "2026-10-04") == []
    between = night(second, 5, BETWEEN)
    assert between == second  # neither found nor gone
    gone = night(second, 6, CLEAR)
    assert [(row["state"], row["notices"]) for row in gone] == [("resolved", 2)]
    assert night(gone, 6, FIRING) == gone  # that night has had its say
    assert [row["state"] for row in night(gone, 7, FIRING)] == ["resolved", "open"]


def test_what_was_not_checked_stays_as_it_is() -> None:
    first = night([], 3, FIRING, replace(FIRING, kind="disk", subject="lake"))
    assert night(first, 4) == first


def test_an_earlier_night_changes_no_later_one() -> None:
    later = night([], 5, FIRING)
    assert night(later, 4, CLEAR) == later
    assert night(later, 4, FIRING) == later


def test_what_becomes_worse_is_told_again_even_if_acknowledged() -> None:
    seen = [row | {"state": "acknowledged"} for row in night([], 3, FIRING)]
    assert night(seen, 4, FIRING)[0]["state"] == "acknowledged"
    [row] = night(seen, 4, replace(FIRING, severity="critical"))
    assert (row["state"], row["severity"], row["notices"]) == ("open", "critical", 2)
    assert worst([row]) == "critical"
    assert worst([]) is None


@pytest.mark.parametrize(
    ("value", "level"), [(0.21, "firing"), (0.2, "between"), (0.17, "between"), (0.16, "clear")]
)
def test_hysteresis(value: float, level: str) -> None:
    assert level_of(value, fires_above=0.2) == level


def test_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    store = Store(str(tmp_path))

    def write(kind: str) -> None:
        change_alerts(store, lambda rows: night(rows, 3, replace(FIRING, kind=kind)))

    threads = [threading.Thread(target=write, args=(f"kind-{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(row["kind"] for row in read_alerts(store)) == [f"kind-{number}" for number in range(8)]


def test_the_command_shows_and_acknowledges(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [row] = change_alerts(Store(str(tmp_path)), lambda rows: night(rows, 3, FIRING))
    assert main(["alerts", "--lake", str(tmp_path), "--ack", row["alert_id"], "--json"]) == 0
    [shown] = json.loads(capsys.readouterr().out)["alerts"]
    assert (shown["state"], shown["kind"]) == ("acknowledged", "drift")
    assert main(["alerts", "--lake", str(tmp_path), "--ack", "nothing"]) == 2
    change_alerts(Store(str(tmp_path)), lambda rows: night(rows, 4, CLEAR))
    with pytest.raises(ConfigError, match="resolved already"):
        acknowledge(Store(str(tmp_path)), row["alert_id"])
    assert main(["alerts", "--lake", str(tmp_path)]) == 0
    assert "alerts (0)" in capsys.readouterr().out


@dataclass
class Receiver:
    """A real server that takes alerts, or refuses with the codes that it was told."""

    url: str = ""
    codes: list[int] = field(default_factory=list)
    taken: list[tuple[dict[str, str], dict[str, Any]]] = field(default_factory=list)
    asked: int = 0


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    state = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            state.asked += 1
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            code = state.codes.pop(0) if state.codes else 204
            if code < 300:
                state.taken.append((dict(self.headers), body))
            self.send_response(code)
            if code == 302:
                self.send_header("Location", state.url)
            self.end_headers()

        def log_message(self, *_args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}/hook"
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02))
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_webhook_is_told_each_change_once_with_the_secret(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SECRET_VARIABLE, "s3cret")
    receiver.codes, pauses = [503, 429], list[float]()
    hook, store = Webhook(url=receiver.url, sleep=pauses.append), Store(str(tmp_path))
    [row] = change_alerts(store, lambda rows: night(rows, 3, FIRING))
    assert deliver(store, [hook]) == {"webhook": 0}
    assert deliver(store, [hook]) == {"webhook": 0}
    change_alerts(store, lambda rows: night(rows, 4, FIRING))
    assert deliver(store, [hook]) == {"webhook": 0}  # the same condition the next night
    [(headers, message)] = receiver.taken
    assert headers["Authorization"] == "Bearer s3cret"
    assert headers["Idempotency-Key"] == message["key"] == f"{row['alert_id']}-1"
    assert message["kind"] == "drift"
    assert "s3cret" not in json.dumps(message)
    assert pauses == [0.5, 1.0]
    change_alerts(store, lambda rows: night(rows, 5, CLEAR))
    deliver(store, [hook])
    assert [message["state"] for _, message in receiver.taken] == ["open", "resolved"]


@pytest.mark.parametrize(("code", "asked"), [(404, 1), (302, 1), (503, 4)])
def test_a_webhook_that_fails_loses_nothing(
    tmp_path: Path, receiver: Receiver, code: int, asked: int
) -> None:
    store, hook = Store(str(tmp_path)), Webhook(url=receiver.url, sleep=lambda _: None)
    change_alerts(store, lambda rows: night(rows, 3, FIRING))
    receiver.codes = [code] * asked
    assert deliver(store, [hook, AlertFile(path=tmp_path / "alerts.jsonl")]) == {"webhook": 1, "file": 0}
    assert (receiver.asked, receiver.taken) == (asked, [])
    assert deliver(store, [hook]) == {"webhook": 0}
    assert len(receiver.taken) == 1


def test_nobody_listens() -> None:
    with pytest.raises(NotDeliveredError, match=r"127\.0\.0\.1 did not take alert a-1"):
        Webhook(url="http://127.0.0.1:9/secret-path", sleep=lambda _: None).send({"key": "a-1"})


@pytest.mark.parametrize("url", ["ftp://host/x", "file:///etc/passwd", "https://user:word@host/x", "host"])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(ConfigError, match="webhook"):
        Webhook(url=url)


def test_a_file_after_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "alerts.jsonl"
    file = AlertFile(path=path)
    file.send({"key": "a-1"})
    file.send({"key": "a-1"})  # told, and not remembered
    with path.open("ab") as torn:
        torn.write(b'{"key": "b-')
    file.send({"key": "b-1"})
    assert path.read_text().splitlines() == ['{"key": "a-1"}', '{"key": "b-', '{"key": "b-1"}']

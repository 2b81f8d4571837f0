"""Prometheus, the alerts and the dashboard's queries against a running `bessemer serve`.

BESSEMER names the program; prometheus and promtool are Debian's package prometheus. The server has the model inside the
program. It gets some requests with the optimisations on, off and on again, while Prometheus, with the committed
configuration but for address and interval, scrapes it; then every query of the dashboard and everything that an alert
looks at must have data.

DASHBOARD_PICTURE=FILE.png draws what the dashboard shows of that (needs matplotlib).
"""

import http.client
import json
import math
import os
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile
import time
import unittest
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import yaml

from server import Server

BOARDS = pathlib.Path(__file__).resolve().parent.parent.parent / "dashboards"
RULES = BOARDS / "prometheus" / "metal_optimizations.yml"
DASHBOARD = json.loads((BOARDS / "grafana" / "bessemer.json").read_text())

# Everything here is over before this.
DEADLINE = time.monotonic() + 85

# What the dashboard's variables stand for.
VARIABLES = {"$job": "bessemer", "$instance": ".*"}
WHOLE_RUN = "60s"

# The file of the picture, and for how long there are requests in each of the three parts of the run.
PICTURE = os.environ.get("DASHBOARD_PICTURE")
SECONDS = 12 if PICTURE else 3

# Queries and series that have no data until something happens that this run does not bring about, and why.
EMPTY = {}

# Names that other systems have given, against the rules of the linter.
FOREIGN_NAMES = re.compile(
    r"vllm:\w+ metric names should not contain ':'"
    r"|ttft_with(out)?_blit_ms metric names should not contain abbreviated units"
)


def get(url, body=None, **headers):
    """Status and text of an answer."""
    body = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def until(what, true):
    """Waits until something is true, and gives it."""
    while True:
        value = true()
        if value:
            return value
        if time.monotonic() > DEADLINE:
            raise TimeoutError(what)
        time.sleep(0.1)


class Prometheus:
    """A Prometheus of its own for a server, with the committed configuration."""

    def __init__(self, target):
        self.folder = tempfile.mkdtemp(prefix="bessemer-prometheus-")
        configuration = yaml.safe_load((BOARDS / "prometheus" / "prometheus.yml").read_text())
        configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        configuration["rule_files"] = [str(BOARDS / "prometheus" / name) for name in configuration["rule_files"]]
        (job,) = configuration["scrape_configs"]
        job["static_configs"] = [{"targets": [target]}]
        path = pathlib.Path(self.folder, "prometheus.yml")
        path.write_text(yaml.safe_dump(configuration))
        # Whoever takes the port in between makes this fail, which a second try mends.
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = "127.0.0.1:%d" % free.getsockname()[1]
        self.url = f"http://{address}"
        self.log = open(pathlib.Path(self.folder, "log"), "w+")
        command = ["prometheus", f"--config.file={path}", f"--storage.tsdb.path={self.folder}/data"]
        self.process = subprocess.Popen([*command, f"--web.listen-address={address}"], stderr=self.log)
        try:
            until("Prometheus is ready", self._is_ready)
        except BaseException:
            self.stop()
            raise

    def _is_ready(self):
        if self.process.poll() is not None:
            self.log.seek(0)
            raise RuntimeError(f"prometheus ended with {self.process.returncode}:\n{self.log.read()}")
        try:
            return get(f"{self.url}/-/ready")[0] == 200
        except OSError:
            return False

    def api(self, path, **parameters):
        """The data of an answer that must be a success."""
        query = urllib.parse.urlencode(parameters)
        status, text = get(f"{self.url}/api/v1/{path}?{query}")
        answer = json.loads(text)
        if answer["status"] != "success":
            raise RuntimeError(f"{path} {parameters}: {status} {answer.get('error')}")
        return answer["data"]

    def values(self, expression):
        """Labels and value of each series that a query gives now, without those that are no number."""
        result = self.api("query", query=expression)["result"]
        values = ((series["metric"], float(series["value"][1])) for series in result)
        return [(labels, value) for labels, value in values if not math.isnan(value)]

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
        shutil.rmtree(self.folder)


def stream(url, prompt, tokens=40, leave_after=None):
    """Streams a completion; whether it was read to its end."""
    address = urllib.parse.urlsplit(url).netloc
    connection = http.client.HTTPConnection(address, timeout=60)
    body = {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": True, "ignore_eos": True}
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    read = 0
    with connection.getresponse() as answer:
        for line in answer:
            read += line.startswith(b"data: ")
            if b"[DONE]" in line:
                return True
            if leave_after is not None and read > leave_after:
                break
    connection.close()
    return False


def panels():
    """Title and queries of each panel."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], filled(target["expr"])


def filled(expression, window=WHOLE_RUN):
    for name, value in {**VARIABLES, "$__rate_interval": window}.items():
        expression = expression.replace(name, value)
    return expression


def alerts():
    """All rules."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def selectors(expression):
    """The series that an expression looks at."""
    bare = re.sub(r"\b(by|on|ignoring|without)\s*\([^)]*\)|\[[^\]]*\]", " ", expression)
    found = re.findall(r"(?<![\w.])([a-zA-Z_:][\w:]*)(\{[^}]*\})?", bare)
    words = {"and", "or", "unless", "bool"}
    functions = set(re.findall(r"([a-zA-Z_]\w*)\s*\(", bare))
    return sorted({name + matchers for name, matchers in found if name not in words | functions})


class Files(unittest.TestCase):
    """What needs no server."""

    def promtool(self, *arguments):
        command = ["promtool", *map(str, arguments)]
        run = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
        print(run.stdout.strip())
        return run

    def test_promtool_takes_rules_and_configuration(self):
        self.assertEqual(self.promtool("check", "rules", RULES).returncode, 0)
        self.assertEqual(self.promtool("check", "config", BOARDS / "prometheus" / "prometheus.yml").returncode, 0)

    def test_each_alert_fires_and_does_not_fire(self):
        tests = RULES.with_name("metal_optimizations_test.yml")
        self.assertEqual(self.promtool("test", "rules", tests).returncode, 0)
        fires, quiet = set(), set()
        for case in yaml.safe_load(tests.read_text())["tests"]:
            for check in case["alert_rule_test"]:
                expected = check["exp_alerts"]
                fires |= {(check["alertname"], alert["exp_labels"]["severity"]) for alert in expected}
                if not expected:
                    quiet.add(check["alertname"])
        for rule in alerts():
            self.assertIn((rule["alert"], rule["labels"]["severity"]), fires, "no test has it fire")
            self.assertIn(rule["alert"], quiet, "no test has it keep quiet")

    def test_selectors(self):
        self.assertEqual(
            selectors('0 < a_b < 0.7 and on (job) c{x="y"} == 1 and on (job) rate(d:e_total[5m]) > 0'),
            ["a_b", 'c{x="y"}', "d:e_total"],
        )
        quantile = "histogram_quantile(0.9, sum by (le, job) (rate(a_bucket[5m]))) > 1e-3"
        self.assertEqual(selectors(quantile), ["a_bucket"])

    def test_dashboard_can_be_laid_out(self):
        panels = DASHBOARD["panels"]
        self.assertEqual(len({panel["id"] for panel in panels}), len(panels))
        taken = set()
        for panel in panels:
            place = panel["gridPos"]
            cells = {
                (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
            }
            self.assertTrue(all(x < 24 for x, _ in cells), panel["title"])
            self.assertFalse(cells & taken, panel["title"])
            taken |= cells
            for target in panel.get("targets", []):
                self.assertEqual(target["datasource"]["uid"], "${datasource}")


class Scraped(unittest.TestCase):
    """A server that was scraped while it worked."""

    @classmethod
    def setUpClass(cls):
        cls.server = Server("--max-sequences", "4", METAL_OPTIMIZATIONS_ENABLED="true")
        cls.addClassCleanup(cls.server.stop)
        cls.target = urllib.parse.urlsplit(cls.server.operator).netloc
        cls.prometheus = Prometheus(cls.target)
        cls.addClassCleanup(cls.prometheus.stop)
        cls.start = time.time()
        # A rate needs a look before the first request.
        until("the first look", lambda: cls.prometheus.values("vllm:num_requests_running"))
        for enabled in (True, False, True):
            change = {"metal_optimizations": {"enabled": enabled}}
            status, answer = get(f"{cls.server.operator}/api/v1/config", change)
            assert status == 200, answer
            cls.work()
        # Two more looks, so that everything that has happened was seen.
        until("two more looks", lambda: cls.looks() >= 2)

    @classmethod
    def work(cls):
        """Some seconds of requests: more at once than run, one that leaves, one that is wrong."""
        prompts = ["Once upon a time", "The dog", "A king had a", "In the forest", "One day, Tom", "The boat"]
        with ThreadPoolExecutor(len(prompts)) as clients:
            end = time.monotonic() + SECONDS
            while time.monotonic() < end:
                assert all(clients.map(lambda prompt: stream(cls.server.url, prompt), prompts))
        assert not stream(cls.server.url, "Once", tokens=400, leave_after=3)
        status, answer = get(f"{cls.server.url}/v1/completions", {"prompt": "a", "temperature": -1})
        assert status == 400, answer
        cls.worked = time.time()

    @classmethod
    def looks(cls):
        """Times that Prometheus has looked since the work was done."""
        window = max(1, int(time.time() - cls.worked))
        return max((value for _, value in cls.prometheus.values(f'count_over_time(up[{window}s])')), default=0)

    def test_target_is_up(self):
        (target,) = self.prometheus.api("targets")["activeTargets"]
        self.assertEqual((target["health"], target["lastError"]), ("up", ""))
        self.assertEqual(target["labels"], {"instance": self.target, "job": "bessemer"})

    def test_promtool_takes_the_metrics(self):
        status, page = get(f"{self.server.operator}/metrics")
        self.assertEqual(status, 200)
        run = subprocess.run(
            ["promtool", "check", "metrics"], input=page, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        complaints = [line for line in run.stdout.splitlines() if not FOREIGN_NAMES.fullmatch(line)]
        self.assertEqual(complaints, [])
        self.assertIn(run.returncode, (0, 3), "what is neither clean nor a matter of names")

    def test_each_query_of_the_dashboard_has_data(self):
        without = []
        for title, query in panels():
            values = self.prometheus.values(query)
            shown = ", ".join(f"{value:.6g}" for _, value in values) or "nothing"
            print(f"{title}: {query}\n    {shown}")
            if not values and query not in EMPTY:
                without.append((title, query))
        self.assertEqual(without, [])

    def test_each_alert_looks_at_data_and_is_quiet(self):
        rules = [rule for group in self.prometheus.api("rules")["groups"] for rule in group["rules"]]
        self.assertEqual(len(rules), len(alerts()))
        for rule in rules:
            self.assertEqual((rule["health"], rule.get("lastError", "")), ("ok", ""), rule["name"])
            self.assertNotEqual(rule["state"], "firing", rule["name"])
        without = []
        for rule in alerts():
            found = selectors(rule["expr"])
            self.assertTrue(found, rule)
            for selector in found:
                values = self.prometheus.values(selector)
                print(f"{rule['alert']}: {selector}: {len(values)} series")
                if not values and selector not in EMPTY:
                    without.append((rule["alert"], selector))
        self.assertEqual(without, [])

    def test_picture(self):
        if not PICTURE:
            self.skipTest("nobody asks for it")
        import dashboard_picture

        span = (self.start, self.worked)
        dashboard_picture.draw(DASHBOARD, lambda query: filled(query, "5s"), self.prometheus, span, PICTURE)


if __name__ == "__main__":
    unittest.main(verbosity=2)

#!/usr/bin/env python3
"""check.py BINARY: the demo under a real Prometheus, with the shipped configuration, rules and dashboards.

Besides the simulated ward there are a Kafka consumer group, a Kafka producer and a webhook, so that every panel has
something to show: fallbacks such as `or vector(0)` are taken off before an expression is asked.
"""
import http.server, json, os, re, shutil, signal, socket, subprocess, sys, tempfile, threading, time, urllib.error, urllib.parse, urllib.request

BINARY = sys.argv[1]
HERE = os.path.dirname(os.path.abspath(__file__))
BOARDS = os.path.join(HERE, "..", "..", "dashboards")
FALLBACK = re.compile(r"\s+or(\s+on\(\))?\s+vector\(0\)")
passed = failed = 0
started = []


def check(name, ok, detail=""):
    global passed, failed
    passed, failed = passed + bool(ok), failed + (not ok)
    print(f"{'ok  ' if ok else 'FAIL'} {name} {detail}".rstrip(), flush=True)
    return ok


def free_port():
    s = socket.socket()
    s.bind(("127.0.0.1", 0))
    port = s.getsockname()[1]
    s.close()
    return port


def get(port, path, timeout=10):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=timeout) as answer:
        return answer.read().decode()


def start(arguments, log, **more):
    process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=open(log, "a"), stderr=subprocess.STDOUT, **more)
    started.append(process)
    return process


def end(process, how=signal.SIGTERM):
    if process.poll() is None:
        process.send_signal(how)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return process.returncode


def wait_for(what, ready, seconds=30):
    until = time.time() + seconds
    while time.time() < until:
        try:
            if ready():
                return True
        except (OSError, ValueError):
            pass
        time.sleep(0.1)
    return check(what, False, f"not within {seconds} s")


def tool(name, *arguments, given=None):
    done = subprocess.run(arguments, input=given, capture_output=True, text=True, timeout=120)
    said = (done.stdout + done.stderr).strip()
    check(name, done.returncode == 0, "" if done.returncode == 0 else said[-2000:])
    return done


def expanded(expr):
    """A panel's expression as Grafana would send it, every variable on All."""
    expr = expr.replace("$__rate_interval", "15s").replace("$__range", "5m").replace("$__interval", "5s")
    return re.sub(r'"\$(\w+)"', '".+"', expr)


class Webhook(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


def static_checks(folder):
    tool("promtool check config", "promtool", "check", "config", os.path.join(BOARDS, "prometheus/prometheus.yml"))
    tool("promtool check rules", "promtool", "check", "rules", os.path.join(BOARDS, "prometheus/rules/vitalsql.yml"))
    tool("promtool test rules", "promtool", "test", "rules", os.path.join(BOARDS, "prometheus/tests/vitalsql_test.yml"))
    tool("amtool check-config", "amtool", "check-config", os.path.join(BOARDS, "alertmanager/alertmanager.yml"))


def adapted(folder, http_port, alarms):
    """The shipped prometheus.yml with these ports, a scrape a second and the rules where they lie."""
    text = open(os.path.join(BOARDS, "prometheus/prometheus.yml")).read()
    for old, new in [("127.0.0.1:8080", f"127.0.0.1:{http_port}"), ("127.0.0.1:9093", f"127.0.0.1:{alarms}"), ("scrape_interval: 5s", "scrape_interval: 1s"), ("scrape_timeout: 4s", "scrape_timeout: 1s"),
                     ("evaluation_interval: 5s", "evaluation_interval: 1s"), ("rules/*.yml", os.path.realpath(os.path.join(BOARDS, "prometheus/rules")) + "/*.yml")]:
        if old not in text:
            check(f"prometheus.yml says {old}", False)
        text = text.replace(old, new)
    path = os.path.join(folder, "prometheus.yml")
    open(path, "w").write(text)
    return path


def manager():
    return shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")


def ask(port, expr):
    answer = json.loads(get(port, "/api/v1/query?" + urllib.parse.urlencode({"query": expr})))
    return answer["data"]["result"]


def expressions():
    """Of every panel and variable: (where, expression)."""
    for name in sorted(os.listdir(os.path.join(BOARDS, "grafana/dashboards"))):
        board = json.load(open(os.path.join(BOARDS, "grafana/dashboards", name)))
        for panel in board["panels"]:
            for target in panel.get("targets", []):
                yield f"{name[:-5]} | {panel['id']} {panel['title']} {target['refId']}", target["expr"]
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"]).groups()
                yield f"{name[:-5]} | variable {variable['name']}", f"count by ({label}) ({selector})"


def may_be_none(expr):
    """Of these there may be none on a good day, and the fallback is the panel's everyday answer."""
    return bool(FALLBACK.search(expr)) and any(f'{label}"' in expr for label in ('state="failed', 'state="active', 'priority="high', 'priority="medium', 'priority="low'))


def panels(port):
    """Asks every expression, again and again until all have series or time is up."""
    wanted = list(expressions())
    check("every panel asks under a name of its own", len(dict(wanted)) == len(wanted))
    empty, nan, until = dict(wanted), {}, time.time() + 60
    while any(not may_be_none(expr) for expr in empty.values()) and time.time() < until:
        for where, expr in list(empty.items()):
            try:
                result = ask(port, FALLBACK.sub("", expanded(expr)))
            except urllib.error.HTTPError as error:
                check(where, False, f"{expr}: {error.read().decode()[:300]}")
                del empty[where]
                continue
            if result:
                nan[where] = all(r["value"][1] == "NaN" for r in result)
                del empty[where]
        time.sleep(1)
    for where, expr in list(empty.items()):
        if may_be_none(expr) and ask(port, expanded(expr)):
            del empty[where]
        else:
            check(f"{where} has series", False, expr)
    check("every expression of every panel and variable has series", not empty, f"{len(wanted)} asked")
    quiet = [where for where, is_nan in nan.items() if is_nan]
    if quiet:
        print(f"     without a number so far (a quantile of nothing): {', '.join(quiet)}")


def names(http_port):
    done = subprocess.run([BINARY, "sql", "-c", "SELECT DISTINCT patient_id, bed FROM vitals", "-o", "jsonl", "--url", f"http://127.0.0.1:{http_port}"],
                          capture_output=True, text=True, timeout=60)
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.strip()]
    check("the demo knows its patients and beds", len(rows) >= 24, done.stderr.strip())
    return {r["patient_id"] for r in rows} | {r["bed"] for r in rows if r["bed"]}


def nobody_in(what, text, people):
    # A bed's name may not stand inside a longer word either: ICU-1-02 is one whoever writes it.
    found = sorted(p for p in people if p in text) + re.findall(r"SIM-[0-9A-Fa-f]{8}", text)[:3]
    check(f"nobody in {what}", not found, str(found[:5]) if found else f"{len(text)} bytes looked through")


def log_lines(text):
    """Of what the demo wrote to stderr, the log's own lines: they begin with a time. The rest is talk, and alerts with their bed."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    return "\n".join(line for line in plain.splitlines() if re.match(r"\s*(\d{4}-\d\d-\d\dT|\{\"timestamp\")", line))


def main():
    folder = tempfile.mkdtemp(prefix="vitalsql-prometheus-")
    try:
        static_checks(folder)
        kafka, http_port, prom, alarms, hook = (free_port() for _ in range(5))
        webhook = http.server.ThreadingHTTPServer(("127.0.0.1", hook), Webhook)
        threading.Thread(target=webhook.serve_forever, daemon=True).start()
        open(os.path.join(folder, "vitalsql.toml"), "w").write(f'[notify.webhook.ward]\nurl = "http://127.0.0.1:{hook}/"\n')
        demo_log, address = os.path.join(folder, "demo.log"), f"127.0.0.1:{kafka}"
        clean = {k: v for k, v in os.environ.items() if not k.startswith("VITALSQL")}
        demo = start([BINARY, "demo", "--data-dir", os.path.join(folder, "data"), "--kafka", address, "--http", f"127.0.0.1:{http_port}"], demo_log,
                     cwd=folder, env={**clean, "VITALSQL_LOG": "info,vitalsql=debug"})
        if not wait_for("the demo is ready", lambda: demo.poll() is not None or get(http_port, "/readyz")) or demo.poll() is not None:
            print(open(demo_log).read()[-3000:])
            return
        start([BINARY, "consume", "vitals", "--group", "panels", "--kafka", address], os.devnull, cwd=folder, env=clean)
        start([BINARY, "simulate", "--topic", "bench.vitals", "--beds", "4", "--kafka", address], os.path.join(folder, "simulate.log"), cwd=folder, env=clean)
        config = adapted(folder, http_port, alarms)
        tool("promtool check config, adapted", "promtool", "check", "config", config)
        prometheus = start(["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder}/tsdb", f"--web.listen-address=127.0.0.1:{prom}", "--log.level=warn"], os.path.join(folder, "prometheus.log"))
        start([manager(), f"--config.file={BOARDS}/alertmanager/alertmanager.yml", f"--storage.path={folder}/alarms", f"--web.listen-address=127.0.0.1:{alarms}", "--cluster.listen-address="], os.path.join(folder, "alertmanager.log"))
        wait_for("Prometheus is ready", lambda: prometheus.poll() is not None or get(prom, "/-/ready"))
        wait_for("the demo is scraped", lambda: any(r["value"][1] == "1" for r in ask(prom, 'up{job="vitalsql"}')))
        time.sleep(2)  # Two scrapes, so that what comes now is seen as a step.
        subprocess.run([BINARY, "produce", "vitals", "--kafka", address], input="this is no reading\n", text=True, capture_output=True, timeout=30, cwd=folder, env=clean)
        wait_for("an alert is counted", lambda: ask(prom, 'vitalsql_alerts_total{state="active"}'), seconds=40)
        for alert in json.loads(get(http_port, "/api/v1/alerts"))[:1]:
            subprocess.run([BINARY, "alerts", "ack", alert["id"], "--by", "panels", "--url", f"http://127.0.0.1:{http_port}"], capture_output=True, timeout=30)
        panels(prom)
        metrics = get(http_port, "/metrics")
        lint = tool("promtool check metrics", "promtool", "check", "metrics", given=metrics)
        check("promtool has nothing to say about /metrics", not (lint.stdout + lint.stderr).strip(), (lint.stdout + lint.stderr).strip()[:500])
        with urllib.request.urlopen(f"http://127.0.0.1:{http_port}/metrics", timeout=10) as answer:
            check("/metrics says what it is", answer.headers["Content-Type"].startswith("text/plain; version=0.0.4"), answer.headers["Content-Type"])
        series = sum(1 for line in metrics.splitlines() if line and not line.startswith("#"))
        check("few series", series < 3000, f"{series}")
        loaded = json.loads(get(prom, "/api/v1/rules"))["data"]["groups"]
        rules = [r for g in loaded for r in g["rules"]]
        check("every rule is loaded and evaluates", rules and all(r["health"] != "err" for r in rules), f"{len(rules)} rules " + str([r["name"] for r in rules if r["health"] == "err"] or ""))
        firing = {a["labels"]["alertname"] for a in json.loads(get(prom, "/api/v1/alerts"))["data"]["alerts"] if a["state"] == "firing"}
        check("no rule cries wolf", not firing & {"EngineDown", "QueryFailed", "WatermarkStuck", "NoReadings", "WardSilent", "DiskNearlyFull", "LateRows"}, f"firing: {sorted(firing) or 'none'}")
        check("the broken reading raises DeadLetters", "DeadLetters" in firing)
        told = lambda: "DeadLetters" in {a["labels"]["alertname"] for a in json.loads(get(alarms, "/api/v2/alerts"))}
        check("and Alertmanager hears of it", wait_for("Alertmanager hears", told))
        people = names(http_port)
        nobody_in("/metrics", get(http_port, "/metrics"), people)
        nobody_in("Prometheus' labels", get(prom, "/api/v1/series?" + urllib.parse.urlencode({"match[]": '{__name__=~".+"}'})), people)
        check("the demo ends well", end(demo, signal.SIGINT) == 0, f"code {demo.returncode}")
        said = open(demo_log).read()
        logged = log_lines(said)
        check("the demo logs at level info", " INFO " in logged or '"INFO"' in logged, f"{len(logged.splitlines())} of {len(said.splitlines())} lines are the log's")
        nobody_in("the log", logged, people)
        # On the terminal an alert names its bed, and no patient.
        nobody_in("the terminal's lines, patients", said, {p for p in people if p.startswith("SIM-")})
    finally:
        for process in reversed(started):
            end(process)
    if failed == 0:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        print(f"logs are kept in {folder}")


main()
print(f"prometheus: {passed} passed, {failed} failed")
sys.exit(1 if failed or not passed else 0)

#!/usr/bin/env python3
"""demo.py BINARY: starts the demo on free ports, waits for the first alert, stops it with Ctrl-C, starts it again."""
import json, os, shutil, signal, socket, subprocess, sys, tempfile, threading, time, urllib.request

BINARY, passed, failed = sys.argv[1], 0, 0

def check(name, ok, detail=""):
    global passed, failed
    passed, failed = passed + bool(ok), failed + (not ok)
    print(f"{'ok  ' if ok else 'FAIL'} {name} {detail}", flush=True)

def free_port():
    s = socket.socket(); s.bind(("127.0.0.1", 0)); port = s.getsockname()[1]; s.close(); return port

def get(http, path):
    return urllib.request.urlopen(f"http://127.0.0.1:{http}{path}", timeout=5).read().decode()

def run(folder, first):
    kafka, http, begun = free_port(), free_port(), time.time()
    p = subprocess.Popen([BINARY, "demo", "--data-dir", folder, "--kafka", f"127.0.0.1:{kafka}", "--http", f"127.0.0.1:{http}"], stderr=subprocess.PIPE, text=True)
    lines, seen = [], {}
    def listen():
        for line in p.stderr:
            lines.append(line)
            if "ready in" in line: seen.setdefault("ready", time.time() - begun)
            if "ALERT" in line and "spo2_low_sustained" in line: seen.setdefault("alert", time.time() - begun)
    threading.Thread(target=listen, daemon=True).start()
    while "ready" not in seen and time.time() - begun < 30 and p.poll() is None: time.sleep(0.01)
    check("ready", seen.get("ready", 99) < 2.0, f"after {seen.get('ready', 99):.2f} s")
    if p.poll() is not None: print("".join(lines)); sys.exit(1)
    check("readyz", "[+] log" in get(http, "/readyz"))
    if first:
        while "alert" not in seen and time.time() - begun < 40: time.sleep(0.05)
        check("first scripted alert", seen.get("alert", 99) < 20.0, f"after {seen.get('alert', 99):.2f} s")
        open_alerts = json.loads(get(http, "/api/v1/alerts"))
        check("the alert is on the desk", any(a["rule"] == "spo2_low_sustained" and a["notice"] == "not a medical device" and a["evidence"] for a in open_alerts))
        alert = next(a for a in open_alerts if a["rule"] == "spo2_low_sustained")
        seen_by = subprocess.run([BINARY, "alerts", "ack", alert["id"], "--by", "demo test", "--url", f"http://127.0.0.1:{http}"], capture_output=True, text=True)
        check("acknowledge", seen_by.returncode == 0, seen_by.stderr.strip())
    time.sleep(3)
    shown = subprocess.run([BINARY, "sql", "-c", "SELECT count(*) AS n FROM vitals", "-o", "jsonl", "--url", f"http://127.0.0.1:{http}"], capture_output=True, text=True)
    count = json.loads(shown.stdout or "{}").get("n", 0)
    states = {q["name"]: (q["state"], q["rows_in"], q["watermark"]) for q in json.loads(get(http, "/api/v1/queries"))}
    check("every query runs", states and all(s == "running" for s, *_ in states.values()), str({k: v[0] for k, v in states.items() if v[0] != "running"}))
    minutes = subprocess.run([BINARY, "sql", "-c", "SELECT count(*) AS n, count(DISTINCT patient_id || CAST(window_start AS VARCHAR)) AS d FROM vitals_1m", "-o", "jsonl", "--url", f"http://127.0.0.1:{http}"], capture_output=True, text=True)
    n = json.loads(minutes.stdout or "{}")
    check("minutes are there, each once", n.get("n", 0) > 100 and n.get("n") == n.get("d"), minutes.stdout.strip() + minutes.stderr.strip())
    stopping = time.time(); p.send_signal(signal.SIGINT); code = p.wait(timeout=20)
    check("Ctrl-C ends with 0", code == 0 and time.time() - stopping < 3.0, f"code {code} after {time.time() - stopping:.2f} s")
    if code != 0: print("".join(lines)[-3000:])
    return count, n.get("n", 0)

folder = tempfile.mkdtemp(prefix="vitalsql-demo-test-")
first, minutes = run(folder, True)
second, more = run(folder, False)
check("a second start goes on", second > first > 15000 and more >= minutes, f"{first} readings, then {second}; {minutes} minutes, then {more}")
shutil.rmtree(folder)
print(f"demo: {passed} passed, {failed} failed")
sys.exit(1 if failed else 0)

#!/usr/bin/env python3
"""page.py BINARY [PAGE]: the demo's page as a nurse meets it, in a headless Chromium. At four times life's speed the first alert is
there at once, a bed falls silent after some twenty seconds, and speaks again half a minute later."""
import http.client, http.server, json, os, shutil, signal, socket, subprocess, sys, tempfile, threading, time, urllib.request

from chrome import Chrome, find

BINARY, PAGE = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
SHOTS = tempfile.gettempdir()
passed = failed = 0


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


def get(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return answer.read().decode()


def in_front_of(port):
    """A server that gives PAGE, and everything else from the node behind it: a page can be tried without a build."""

    class Front(http.server.BaseHTTPRequestHandler):
        def serve(self):
            length = int(self.headers.get("Content-Length") or 0)
            if self.path == "/":
                kind, parts = "text/html; charset=utf-8", iter([open(PAGE, "rb").read()])
                status = 200
            else:
                back = http.client.HTTPConnection("127.0.0.1", port)
                back.request(self.command, self.path, self.rfile.read(length) if length else None, {"Content-Type": self.headers.get("Content-Type", "text/plain")})
                answer = back.getresponse()
                status, kind, parts = answer.status, answer.getheader("Content-Type") or "", iter(lambda: answer.read1(65536), b"")
            try:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.end_headers()
                for part in parts:
                    self.wfile.write(part)
                    self.wfile.flush()
            except OSError:
                pass

        do_GET = do_POST = serve

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Front)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


# What a tile says, what the canvases hold, what stands where it should not: asked inside the page.
TILES = """[...document.querySelectorAll('.tile')].map(t => ({ bed: t.querySelector('.bed').textContent, silent: t.classList.contains('silent'), alert: t.classList.contains('high') || t.classList.contains('medium'),
  label: t.getAttribute('aria-label'), words: t.innerText, values: [...t.querySelectorAll('.n')].map(n => n.textContent).join(' ') }))"""
DRAWN = """(() => { const own = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  return [...document.querySelectorAll('.tile canvas')].map(c => { if (!c.width) return [0, 0]; own.canvas.width = c.width; own.canvas.height = c.height; own.drawImage(c, 0, 0);
    const d = own.getImageData(0, 0, c.width, c.height).data; let n = 0, sum = 0; for (let i = 3; i < d.length; i += 4) if (d[i] > 100) { n++; sum = (sum * 31 + i) % 1000003; } return [n, sum]; }); })()"""
# Texts as they stand: outside their card or the screen, cut off, or one upon the other.
MISPLACED = """(() => { const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), boxes = new Map();
  if (document.documentElement.scrollWidth > innerWidth) found.push('the page is ' + document.documentElement.scrollWidth + ' wide');
  for (let node; node = walker.nextNode();) { const el = node.parentElement; if (!node.textContent.trim() || !el.checkVisibility() || el.closest('.unseen, script, style, option')) continue;
    const range = document.createRange(); range.selectNodeContents(node); const home = el.closest('.tile, .card, header') || document.body, h = home.getBoundingClientRect(), said = node.textContent.trim(), lines = [...range.getClientRects()];
    const cut = [el, el.parentElement].some(e => getComputedStyle(e).textOverflow === 'ellipsis' && e.scrollWidth > e.clientWidth + 1);
    if (cut) { if (!MAY_BE_CUT) found.push('cut off: ' + said); continue; }
    for (const r of lines) {
      if (r.left < h.left - .5 || r.right > h.right + .5 || r.left < 0 || r.right > innerWidth + .5) found.push('sticks out: ' + said);
      for (const [other, o] of boxes.get(home) || []) if (r.left < o.right - 1 && o.left < r.right - 1 && r.top < o.bottom - 3 && o.top < r.bottom - 3) found.push('over each other: ' + other + ' | ' + said); }
    boxes.set(home, [...(boxes.get(home) || []), ...lines.map(r => [said, r])]); }
  return [...new Set(found)]; })()"""
# WCAG 2.2 contrast of every text against the colour behind it; large text needs 3, all other 4.5.
PALE = """(() => { const c = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgb = colour => { c.clearRect(0, 0, 1, 1); c.fillStyle = colour; c.fillRect(0, 0, 1, 1); return [...c.getImageData(0, 0, 1, 1).data]; };
  const light = ([r, g, b]) => { const f = v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; return .2126 * f(r) + .7152 * f(g) + .0722 * f(b); };
  const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; node = walker.nextNode();) { const el = node.parentElement; if (!node.textContent.trim() || !el.checkVisibility() || el.closest('.unseen, script, style, option')) continue;
    let back = el; while (back && rgb(getComputedStyle(back).backgroundColor)[3] < 250) back = back.parentElement;
    const style = getComputedStyle(el), a = light(rgb(style.color)), b = light(rgb(getComputedStyle(back || document.body).backgroundColor)), ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    const big = parseFloat(style.fontSize) >= 24 || parseFloat(style.fontSize) >= 18.6 && style.fontWeight >= 700;
    if (ratio < (big ? 3 : 4.5)) found.push(node.textContent.trim().slice(0, 30) + ' ' + ratio.toFixed(2)); }
  return [...new Set(found)]; })()"""
SEEN = """(s => { const e = document.querySelector(s); if (!e || !e.checkVisibility()) return null; const r = e.getBoundingClientRect(); return r.width && r.top >= 0 && r.bottom <= innerHeight && r.right <= innerWidth ? e.innerText : null; })"""


class Page:
    def __init__(self, http_port, kafka_port):
        self.http, self.kafka, self.chrome, self.shots = http_port, kafka_port, Chrome(find()), []

    def js(self, expression):
        return self.chrome.js(expression)

    def until(self, expression, seconds=20):
        return self.chrome.wait_for(lambda: self.js(expression), seconds)

    def shot(self, name, whole=False):
        self.shots.append(self.chrome.shot(os.path.join(SHOTS, f"vitalsql-page-{name}.png"), whole))

    def misplaced(self, where, may_be_cut=False):
        found = self.js(MISPLACED.replace("MAY_BE_CUT", "true" if may_be_cut else "false"))
        check(f"nothing sticks out, is cut off or lies over something else at {where}", not found, "; ".join(found[:6]))

    def api_alert(self, identity):
        return next((a for a in json.loads(get(self.http, "/api/v1/alerts")) if a["id"] == identity), None)


def moves(page):
    check("the page shows 24 beds", page.until("document.querySelectorAll('.tile').length === 24"), str(page.js("document.querySelectorAll('.tile').length")))
    check("it says that it is no medical device, where one sees it", "not a medical device" in (page.js(SEEN + "('.notice')") or "").lower())
    page.until("%s.every(([n]) => n > 30)" % DRAWN, 15)
    before, lines = {t["bed"]: t["values"] for t in page.js(TILES)}, page.js(DRAWN)
    time.sleep(3)
    after, later = {t["bed"]: t["values"] for t in page.js(TILES)}, page.js(DRAWN)
    moved = sum(before[bed] != after[bed] for bed in before if bed in after)
    check("the values move", moved >= 12, f"{moved} of {len(before)} beds within 3 s")
    check("every bed has its two lines drawn", len(lines) == 48 and all(n > 30 for n, _ in lines), f"{sum(n > 30 for n, _ in lines)} of {len(lines)}")
    check("the lines move", sum(a != b for a, b in zip(lines, later)) >= 12, f"{sum(a != b for a, b in zip(lines, later))} of {len(lines)} within 3 s")
    rates = page.until("(r => r.length >= 10 && r.some(x => x > 10) ? r : null)([...document.querySelectorAll('#queries tr')].map(r => +r.cells[1].textContent))", 10)
    check("the queries and their rates are there", rates, str(rates))


def one(page, rule):
    """The list's entry of the rule, once there is one."""
    return page.until(f"""(e => e && {{ id: e.dataset.id, state: e.classList.contains('active') ? 'active' : 'acknowledged', bed: e.querySelector('.where').textContent, words: e.innerText }})
        (document.querySelector('.alert[data-rule="{rule}"]'))""", 40)


def calls(page):
    alert = one(page, "spo2_low_sustained")
    if not check("an alert appears", alert and alert["state"] == "active", str(alert and alert["words"].split("\n"))):
        return
    tile = page.until(f"(t => t && t.classList.contains('high') && t.innerText)([...document.querySelectorAll('.tile')].find(t => t.querySelector('.bed').textContent === '{alert['bed']}'))", 5)
    check("its bed is marked and stands first", tile and "spo2 low sustained" in tile and page.js(TILES)[0]["bed"] == alert["bed"], alert["bed"])
    said = page.js("document.getElementById('say').innerText + document.getElementById('say').getAttribute('aria-live')")
    check("it is read out to who cannot see it", "spo2 low sustained" in said and "assertive" in said, said.split("\n")[0])
    page.js("document.getElementById('by').focus()")
    page.chrome.call("Input.insertText", text="page test")
    x, y = page.js("(r => [r.x + r.width / 2, r.y + r.height / 2])(document.querySelector('.alert[data-id=\"%s\"] .ack').getBoundingClientRect())" % alert["id"])
    begun = time.time()
    page.chrome.click(x, y)
    shown = page.until("(e => e && e.classList.contains('acknowledged') && !e.querySelector('.ack').checkVisibility() && e.innerText)(document.querySelector('.alert[data-id=\"%s\"]'))" % alert["id"], 10)
    check("a click acknowledges it", shown and "seen by page test" in shown, f"after {time.time() - begun:.2f} s: {(shown or '').split(chr(10))[-1]}")
    at_node = page.api_alert(alert["id"])
    check("and the node knows it", at_node and at_node["state"] == "acknowledged" and at_node["acknowledged_by"] == "page test", str(at_node and (at_node["state"], at_node["acknowledged_by"])))


def falls_silent(page):
    silent = page.until(f"({TILES}).filter(t => t.silent)", 40)
    if not check("a bed that falls silent is shown as silent", silent and "SILENT" in silent[0]["words"] and "silent" in silent[0]["label"], str(silent and silent[0]["label"])):
        return
    check("it shows no score of what it last said", "NEWS2" not in silent[0]["words"])
    check("nobody else is silent, and the head counts it", len(silent) == 1 and page.js("document.getElementById('silent').textContent") == "1")
    alert = one(page, "missing_signal")
    check("its own alert names the bed", alert and alert["bed"] == silent[0]["bed"], str(alert and alert["words"].split("\n")))
    page.shot("1280x800")
    page.misplaced("1280x800")
    for scheme in ("dark", "light"):
        page.chrome.scheme(scheme)
        pale = page.js(PALE)
        check(f"every text stands out from its ground, {scheme}", not pale, "; ".join(pale[:6]))
    page.shot("1280x800-light")
    page.chrome.scheme("dark")
    page.chrome.size(390, 844, True)
    page.until("innerWidth === 390", 5)
    time.sleep(1.2)  # The lines are drawn anew with the next second.
    page.shot("390x844")
    page.misplaced("390x844")
    check("on a telephone the alerts come before the beds", page.js("document.querySelector('.alerts').getBoundingClientRect().bottom <= document.querySelector('.tile').getBoundingClientRect().top"))
    page.chrome.size(1280, 800)
    if alert:
        page.js("document.querySelector('.alert[data-id=\"%s\"] .where').focus()" % alert["id"])
        page.chrome.press("Enter", 13)
        check("Enter on its bed goes to the tile", page.until(f"document.activeElement.classList.contains('tile') && document.activeElement.querySelector('.bed').textContent === '{alert['bed']}'", 3))
        page.js("document.querySelector('.alert[data-id=\"%s\"] .ack').focus()" % alert["id"])
        page.chrome.press("Enter", 13)
        shown = page.until("document.querySelector('.alert[data-id=\"%s\"].acknowledged')?.innerText" % alert["id"], 10)
        check("Enter acknowledges too", shown and "seen by page test" in shown and (page.api_alert(alert["id"]) or {}).get("state") == "acknowledged")
    again = page.until(f"({TILES}).find(t => t.bed === '{silent[0]['bed']}' && !t.silent && t.words.includes('NEWS2'))", 40)
    check("when it speaks again it is no longer silent", again)
    check("and its alert is over", page.until("!document.querySelector('.alert[data-rule=\"missing_signal\"]')", 15))


def wards(page):
    page.js("(s => { s.selectedIndex = 1; s.dispatchEvent(new Event('change')); })(document.getElementById('ward'))")
    fewer = page.js("document.querySelectorAll('.tile').length")
    page.js("(s => { s.selectedIndex = 0; s.dispatchEvent(new Event('change')); })(document.getElementById('ward'))")
    check("one ward alone can be shown", 0 < fewer < 24 and page.js("document.querySelectorAll('.tile').length") == 24, f"{fewer} beds")


def strange_names(page):
    now = json.loads(get(page.http, "/api/v1/ward"))["now"]
    bed = "<img src=x onerror=\"document.title='broken in'\">" + "W" * 200
    row = json.dumps({"patient_id": "stranger", "bed": bed, "ward": "w" * 300, "heart_rate": 1e12, "spo2": -5, "ts": now})
    subprocess.run([BINARY, "produce", "vitals", "--key-field", "patient_id", "--kafka", f"127.0.0.1:{page.kafka}"], input=row, text=True, capture_output=True, timeout=30)
    there = page.until("[...document.querySelectorAll('.tile .bed')].some(b => b.textContent.startsWith('<img'))", 10)
    check("a bed's name is text, whatever it says", there and "broken in" not in page.js("document.title") and page.js("document.querySelectorAll('main img').length") == 0)
    page.chrome.size(390, 844, True)
    time.sleep(0.5)
    page.misplaced("390x844 with a name of 250 letters", may_be_cut=True)


def main():
    folder = tempfile.mkdtemp(prefix="vitalsql-page-")
    kafka, node_port = free_port(), free_port()
    clean = {k: v for k, v in os.environ.items() if not k.startswith("VITALSQL")}
    log = open(os.path.join(folder, "log"), "w")
    demo = subprocess.Popen([BINARY, "demo", "--data-dir", os.path.join(folder, "data"), "--kafka", f"127.0.0.1:{kafka}", "--http", f"127.0.0.1:{node_port}", "--speed", "4"],
                            cwd=folder, env=clean, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    page = None
    try:
        until = time.time() + 20
        while time.time() < until and demo.poll() is None:
            try:
                get(node_port, "/readyz")
                break
            except OSError:
                time.sleep(0.05)
        page = Page(node_port, kafka)
        page.chrome.open(f"http://127.0.0.1:{in_front_of(node_port) if PAGE else node_port}/", 1280, 800)
        moves(page)
        calls(page)
        falls_silent(page)
        wards(page)
        strange_names(page)
        check("the browser has nothing to complain about, and nothing was fetched from elsewhere", not page.chrome.troubles, "; ".join(page.chrome.troubles[:5]))
        demo.send_signal(signal.SIGINT)
        check("the demo ends well while the page is open", demo.wait(timeout=20) == 0, f"code {demo.returncode}")
        check("the page says that the connection is lost", page.until("document.getElementById('lost').checkVisibility()", 10))
    finally:
        if page:
            page.chrome.close()
        if demo.poll() is None:
            demo.kill()
            demo.wait()
        said = open(log.name).read()
        shutil.rmtree(folder, ignore_errors=True)
    if failed:
        print(said[-2000:])
    print("screenshots: " + " ".join(page.shots))


main()
print(f"page: {passed} passed, {failed} failed")
sys.exit(1 if failed or not passed else 0)

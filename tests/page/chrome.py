"""A headless Chromium driven over its DevTools pipe: commands and events as JSON texts, each ended by a zero byte. No package needed."""
import base64, json, os, queue, shutil, subprocess, tempfile, threading, time


def find():
    """The browser's path, or None."""
    for name in (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        path = name and shutil.which(name)
        if path:
            return path
    return None


class Chrome:
    """One browser with one tab. `troubles` collects what its console, its network and its exceptions complained about."""

    def __init__(self, binary):
        self.folder = tempfile.mkdtemp(prefix="vitalsql-chromium-")
        self.troubles, self.answers, self.last, self.session = [], {}, 0, None
        self.arrived = threading.Condition()
        their_in, self.into = os.pipe()
        self.out, their_out = os.pipe()
        for fd in (their_in, their_out):
            os.set_inheritable(fd, True)
        flags = ["--headless=new", "--remote-debugging-pipe", f"--user-data-dir={self.folder}", "--no-first-run", "--no-default-browser-check", "--disable-gpu", "--disable-dev-shm-usage",
                 "--disable-extensions", "--disable-sync", "--disable-background-networking", "--disable-component-update", "--mute-audio", "--hide-scrollbars", "--force-color-profile=srgb"]
        if os.geteuid() == 0:
            flags.append("--no-sandbox")  # Chromium refuses its sandbox to root, as a container's user mostly is.
        # The browser expects its commands on descriptor 3 and answers on 4.
        script = f'exec "$@" 3<&{their_in} 4>&{their_out}'
        self.process = subprocess.Popen(["bash", "-c", script, "bash", binary, *flags, "about:blank"], pass_fds=(their_in, their_out), stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=open(os.path.join(self.folder, "stderr"), "w"), start_new_session=True)
        os.close(their_in)
        os.close(their_out)
        threading.Thread(target=self._listen, daemon=True).start()
        try:
            pages = self.wait_for(lambda: [t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page"])
            self.session = self.call("Target.attachToTarget", targetId=pages[0]["targetId"], flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.call(f"{domain}.enable")
        except BaseException:
            self.close()
            raise

    def _listen(self):
        rest = b""
        while True:
            part = os.read(self.out, 1 << 16)
            if not part:
                return
            *whole, rest = (rest + part).split(b"\0")
            for text in whole:
                self._take(json.loads(text))

    def _take(self, message):
        if "id" in message:
            with self.arrived:
                self.answers[message["id"]] = message
                self.arrived.notify_all()
            return
        method, params = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.troubles.append("exception: " + details.get("exception", {}).get("description", details.get("text", "")))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.troubles.append(f"console.{params['type']}: " + " ".join(str(a.get("value", a.get("description", ""))) for a in params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.troubles.append(f"log: {params['entry']['text']} {params['entry'].get('url', '')}".rstrip())
        elif method == "Network.requestWillBeSent" and not params["request"]["url"].startswith(("http://127.0.0.1:", "data:", "about:")):
            self.troubles.append(f"a request leaves this machine: {params['request']['url'][:120]}")

    def call(self, method, timeout=20, **params):
        self.last += 1
        number, message = self.last, {"id": self.last, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.into, json.dumps(message).encode() + b"\0")
        with self.arrived:
            if not self.arrived.wait_for(lambda: number in self.answers, timeout):
                raise TimeoutError(f"{method} was not answered within {timeout} s: " + open(os.path.join(self.folder, "stderr")).read()[-500:])
            answer = self.answers.pop(number)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    @staticmethod
    def wait_for(get, seconds=20):
        """What `get` answers once that is something."""
        until = time.time() + seconds
        while True:
            found = get()
            if found or time.time() > until:
                return found
            time.sleep(0.05)

    def open(self, url, width, height, scheme="dark", touch=False):
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.size(width, height, touch)
        self.call("Page.navigate", url=url)

    def size(self, width, height, mobile=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)

    def scheme(self, name):
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def js(self, expression):
        """The value of an expression in the page; promises are awaited."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"].get("exception", {}).get("description", "?"))
        return answer["result"].get("value")

    def click(self, x, y):
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="none" if kind == "mouseMoved" else "left", clickCount=0 if kind == "mouseMoved" else 1)

    def press(self, key, code=0):
        text = {"Enter": "\r"}.get(key)
        for kind in ("keyDown", "keyUp"):
            more = {"text": text} if text and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **more)

    def shot(self, path, whole=False):
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        with open(path, "wb") as file:
            file.write(base64.b64decode(data))
        return path

    def close(self):
        if self.process.poll() is None:
            try:
                self.session = None
                self.call("Browser.close", timeout=5)
                self.process.wait(timeout=10)
            except (RuntimeError, TimeoutError, OSError, subprocess.TimeoutExpired):
                self.process.kill()
                self.process.wait()
        for fd in (self.into, self.out):
            try:
                os.close(fd)
            except OSError:
                pass
        for _ in range(20):  # Its helpers may still write a moment.
            shutil.rmtree(self.folder, ignore_errors=True)
            if not os.path.exists(self.folder):
                return
            time.sleep(0.1)

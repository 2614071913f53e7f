"""The two brokers as sockets: requests go to both in lock-step, each on the same connection of either."""
import select, socket, struct, time
from codec import APIS, Bad

class Closed(Exception):
    """The broker hung up."""

class Line:
    """One connection."""
    def __init__(self, address):
        self.socket = socket.create_connection(address, 5); self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.data = bytearray()
    def send(self, frame):
        try: self.socket.sendall(frame)
        except OSError: pass
    def frame(self, wait):
        """The next whole frame, None where none came within `wait` seconds."""
        until = time.monotonic() + wait
        while True:
            if len(self.data) >= 4:
                n = struct.unpack(">i", self.data[:4])[0]
                if n < 0 or n > 1 << 27: raise Closed
                if len(self.data) >= 4 + n:
                    out = bytes(self.data[4:4 + n]); del self.data[:4 + n]
                    return out
            left = until - time.monotonic()
            if not select.select([self.socket], [], [], max(left, 0))[0]: return None
            try: got = self.socket.recv(1 << 20)
            except OSError: got = b""
            if not got: raise Closed
            self.data += got
    def close(self): self.socket.close()

class Side:
    """One broker and the connections to it, by number."""
    def __init__(self, name, address): self.name, self.address, self.lines, self.correlation, self.clients = name, address, {}, 0, {}
    def line(self, number):
        if number not in self.lines: self.lines[number] = Line(self.address)
        return self.lines[number]
    def drop(self, number):
        if number in self.lines: self.lines.pop(number).close()
    def send(self, number, api, version, body, raw=None, client="diff"):
        self.correlation += 1
        self.line(number).send(api.frame(version, self.correlation, client, body, raw))
        return self.correlation
    def receive(self, number, api, version, correlation, wait):
        """('answer', body), ('closed', why) or None where nothing came."""
        try: frame = self.line(number).frame(wait)
        except Closed: self.drop(number); return ("closed", None)
        if frame is None: return None
        try: got, body = api.answer(version, frame)
        except (Bad, struct.error, UnicodeDecodeError) as e: return ("unreadable", f"{e}: {frame.hex()[:400]}")
        if got != correlation: return ("unreadable", f"correlation {got} instead of {correlation}")
        return ("answer", body)
    def ask(self, name, version, body, wait=10, number="control"):
        """A question outside the comparison; its answer."""
        api = APIS[name]
        c = self.send(number, api, version, body)
        got = self.receive(number, api, version, c, wait)
        if got is None or got[0] != "answer": raise Bad(f"{self.name} says {got} to {name} v{version}")
        return got[1]

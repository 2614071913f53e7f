"""The little of Kafka's protocol that a stranger needs to be a nuisance: frames, batches, and requests that are nearly right."""
import socket, struct, time

TABLE = []
for n in range(256):
    for _ in range(8):
        n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
    TABLE.append(n)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


def varint(n):
    n, out = (n << 1) ^ (n >> 63), bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def string(s):
    return struct.pack(">h", len(s)) + s.encode()


def record(value, delta=0, key=b"p"):
    body = b"\0" + varint(0) + varint(delta) + varint(len(key)) + key + varint(len(value)) + value + varint(0)
    return varint(len(body)) + body


def packed(body, count, codec=0, last=None):
    """A batch around records, its checksum right, its count and its last offset as said."""
    now = int(time.time() * 1000)
    tail = struct.pack(">hiqqqhii", codec, count - 1 if last is None else last, now, now, -1, -1, -1, count) + body
    return struct.pack(">qiibI", 0, len(tail) + 9, -1, 2, crc32c(tail)) + tail


def batch(values, count=None):
    body = b"".join(record(value, i) for i, value in enumerate(values))
    return packed(body, len(values) if count is None else count)


def produce_body(topic, records, partition=0, acks=-1):
    return struct.pack(">hhi", -1, acks, 5000) + struct.pack(">i", 1) + string(topic) + struct.pack(">iii", 1, partition, len(records)) + records


def fetch_body(topic, at, most=8 << 20):
    return struct.pack(">iiiib", -1, 100, 1, most, 0) + struct.pack(">i", 1) + string(topic) + struct.pack(">iiqi", 1, 0, at, most)


def nearly_right(topic):
    """(key, version, body) of requests that a node takes as they stand."""
    one = struct.pack(">i", 1) + string(topic)
    return [
        (0, 8, produce_body(topic, batch([b"a", b"b"]))), (1, 4, fetch_body(topic, 0)), (2, 1, struct.pack(">i", -1) + one + struct.pack(">iiq", 1, 0, -1)), (3, 1, one),
        (8, 2, string("g") + struct.pack(">i", -1) + string("") + struct.pack(">q", -1) + one + struct.pack(">iiq", 1, 0, 5) + string("m")), (9, 1, string("g") + one + struct.pack(">ii", 1, 0)),
        (10, 1, string("g") + b"\0"), (11, 0, string("g") + struct.pack(">i", 10000) + string("") + string("consumer") + struct.pack(">i", 1) + string("range") + struct.pack(">i", 4) + b"meta"),
        (12, 0, string("g") + struct.pack(">i", 1) + string("m")), (13, 0, string("g") + string("m")), (14, 0, string("g") + struct.pack(">i", 1) + string("m") + struct.pack(">i", 0)),
        (15, 0, struct.pack(">i", 1) + string("g")), (16, 0, b""), (18, 0, b""), (19, 2, one + struct.pack(">ihiii", 1, 1, 0, 0, 1000) + b"\0"), (22, 0, struct.pack(">hi", -1, 60000)),
        (32, 0, struct.pack(">i", 1) + b"\2" + string(topic) + struct.pack(">i", -1)), (37, 0, one + struct.pack(">iii", 2, -1, 1000) + b"\1"), (60, 0, b"\0\0"),
    ]


class Client:
    def __init__(self, port, timeout=10):
        self.s = socket.create_connection(("127.0.0.1", port), timeout=timeout)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.s.close()

    def send(self, key, version, body, length=None):
        frame = struct.pack(">hhi", key, version, 7) + string("stranger") + body
        self.s.sendall(struct.pack(">i", len(frame) if length is None else length) + frame)

    def read(self, n):
        out = b""
        while len(out) < n:
            part = self.s.recv(n - len(out))
            if not part:
                raise ConnectionError("closed")
            out += part
        return out

    def answer(self):
        return self.read(struct.unpack(">i", self.read(4))[0])[4:]

    def is_closed(self):
        try:
            self.s.settimeout(5)
            return self.s.recv(1) == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False

    def produce(self, topic, records):
        """(error code, first offset, what the node says of it)."""
        self.send(0, 8, produce_body(topic, records))
        a = self.answer()
        at = 4 + 2 + len(topic) + 4 + 4
        error, base = struct.unpack_from(">hq", a, at)
        at += 2 + 8 + 8 + 8
        (count,) = struct.unpack_from(">i", a, at)
        at += 4
        for _ in range(count):
            (n,) = struct.unpack_from(">h", a, at + 4)
            at += 6 + max(n, 0)
        (n,) = struct.unpack_from(">h", a, at)
        return error, base, a[at + 2:at + 2 + n].decode() if n > 0 else ""

    def batches(self, topic):
        """Every whole batch of partition 0, as (count of records, the bytes behind the batch's header)."""
        at = 0
        while True:
            self.send(1, 4, fetch_body(topic, at))
            a = self.answer()
            here = 4 + 4 + 2 + len(topic) + 4 + 4
            error, high, _, aborted = struct.unpack_from(">hqqi", a, here)
            here += 22 + 16 * max(aborted, 0)
            (size,) = struct.unpack_from(">i", a, here)
            here += 4
            end = here + size
            if error or size <= 0:
                return
            while here + 61 <= end:
                base, length = struct.unpack_from(">qi", a, here)
                if here + 12 + length > end:
                    break
                delta, count = struct.unpack_from(">i", a, here + 23)[0], struct.unpack_from(">i", a, here + 57)[0]
                yield count, a[here + 61:here + 12 + length]
                at, here = base + delta + 1, here + 12 + length
            if at >= high:
                return

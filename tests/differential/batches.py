"""Record batches, well made and in every way badly made, and their reading.

A batch is written twice for one exchange: the producer id inside differs from side to side, so the maker is kept and
told which id to write.
"""
import gzip, struct, time

def _table():
    t = []
    for n in range(256):
        for _ in range(8): n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
        t.append(n)
    return t
_CRC = _table()
def crc32c(data):
    c = 0xFFFFFFFF
    for b in data: c = c >> 8 ^ _CRC[(c ^ b) & 0xFF]
    return c ^ 0xFFFFFFFF

def varint(n):
    n, out = (n << 1) ^ (n >> 63), bytearray()
    n &= (1 << 64) - 1
    while n >= 0x80: out.append(n & 0x7f | 0x80); n >>= 7
    out.append(n)
    return bytes(out)

def record(delta, stamp, key, value, headers):
    def blob(b): return varint(-1) if b is None else varint(len(b)) + b
    body = b"\0" + varint(stamp) + varint(delta) + blob(key) + blob(value) + varint(len(headers)) + b"".join(varint(len(k)) + k + blob(v) for k, v in headers)
    return varint(len(body)) + body

def compress(codec, data):
    if codec == 1: return gzip.compress(data, mtime=0)
    from kafka import codec as c
    if codec == 2: return c.snappy_encode(data)
    if codec == 3: return c.lz4_encode(data)
    if codec == 4: return c.zstd_encode(data)
    return data

def available():
    from kafka import codec as c
    return [0, 1] + [n for n, has in ((2, c.has_snappy), (3, c.has_lz4), (4, c.has_zstd)) if has()]

class Records:
    """The records field of one partition: a list of batches, each a dict of what differs from the usual."""
    def __init__(self, batches): self.batches = batches
    def build(self, pid_of): return b"".join(self.one(b, pid_of) for b in self.batches)
    def one(self, b, pid_of):
        rows, base_stamp = b["rows"], b.get("stamp", 1_700_000_000_000)
        data = b"".join(record(b.get("deltas", {}).get(i, i), s, k, v, h) for i, (s, k, v, h) in enumerate(rows)) + b.get("behind", b"")
        codec = b.get("codec", 0)
        attributes = codec | (8 if b.get("append_time") else 0) | (16 if b.get("txn") else 0) | (32 if b.get("control") else 0) | b.get("attributes", 0)
        pid = b.get("pid", -1)
        top = base_stamp + max([r[0] for r in rows], default=0)
        tail = struct.pack(">hiqqqhii", attributes, b.get("last_delta", len(rows) - 1), base_stamp, b.get("max_stamp", top), pid_of(pid), b.get("epoch", -1), b["sequence"] & 0x7fffffff if b.get("sequence", -1) > 0 else b.get("sequence", -1), b.get("count", len(rows)))
        tail += b["body"] if "body" in b else compress(codec, data)
        crc = crc32c(tail) ^ (1 if b.get("bad_crc") else 0)
        head = struct.pack(">ibI", b.get("leader_epoch", -1), b.get("magic", 2), crc)
        whole = struct.pack(">qi", b.get("base", 0), b.get("length", len(head) + len(tail))) + head + tail
        return whole[:len(whole) - b["cut"]] if b.get("cut") else whole
    def __repr__(self): return f"Records({self.batches})"
    def __len__(self): return len(self.batches)

class Raw:
    """Bytes that are meant as they are."""
    def __init__(self, data): self.data = data
    def build(self, _): return self.data
    def __repr__(self): return f"Raw({self.data.hex()[:120]})"

def unvarint(d, p):
    n = s = 0
    while True:
        b = d[p]; p += 1; n |= (b & 0x7f) << s; s += 7
        if b < 0x80: return (n >> 1) ^ -(n & 1), p

def part(data):
    """How many bytes lie behind the last whole batch."""
    p = 0
    while p + 12 <= len(data) and p + 12 + struct.unpack(">i", data[p + 8:p + 12])[0] <= len(data): p += 12 + struct.unpack(">i", data[p + 8:p + 12])[0]
    return len(data) - p

def read(data):
    """What a Fetch answer holds, batch by batch, as dicts. A part of a batch at the end counts for nothing, as with every client."""
    out, p = [], 0
    while p < len(data):
        if len(data) - p < 61: break
        base, length, leader_epoch, magic, crc = struct.unpack(">qiibI", data[p:p + 21])
        if p + 12 + length > len(data): break
        tail = data[p + 21:p + 12 + length]
        attributes, last, stamp, top, pid, epoch, sequence, count = struct.unpack(">hiqqqhii", tail[:40])
        body = tail[40:]
        b = {"BaseOffset": base, "LeaderEpoch": leader_epoch, "Magic": magic, "Checksum": "right" if crc32c(tail) == crc else "wrong", "Attributes": attributes, "LastOffsetDelta": last,
            "BaseTimestamp": stamp, "MaxTimestamp": top, "ProducerId": pid, "ProducerEpoch": epoch, "BaseSequence": sequence, "Count": count, "Body": body.hex()}
        if attributes & 8: b["BaseTimestamp"] = b["BaseTimestamp"]; b["MaxTimestamp"] = "the broker's time"
        if attributes & 32:
            # A marker's key says its version and kind; its value, the coordinator's epoch, is the coordinator's own.
            b["BaseTimestamp"] = b["MaxTimestamp"] = "the broker's time"
            q = 0; _, q = unvarint(body, q); q += 1; _, q = unvarint(body, q); _, q = unvarint(body, q); n, q = unvarint(body, q)
            b["Body"] = "marker " + body[q:q + n].hex()
        out.append(b)
        p += 12 + length
    return out

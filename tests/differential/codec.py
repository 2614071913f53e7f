"""Kafka's messages as plain dicts, written and read by the message definitions that kafka-python ships.

Knows nothing of VitalSQL: what it cannot read, or what it leaves unread, is a finding. The APIs kafka-python has
no definitions for are written down at the end in the same form.
"""
import struct, uuid
from kafka.protocol.schemas.load_json import load_json

class Bad(Exception):
    """Bytes that are not the message they should be."""

def span(text, top=32767):
    """'3+', '1-4', '2', 'none' as a pair."""
    if text is None or text == "none": return (1, 0)
    if text.endswith("+"): return (int(text[:-1]), top)
    a, _, b = text.partition("-")
    return (int(a), int(b or a))

def within(version, pair): return pair[0] <= version <= pair[1]

class Field:
    def __init__(self, j, structs):
        self.name, kind = j["name"], j["type"].strip()
        self.versions, self.nullable = span(j.get("versions", "0+")), span(j.get("nullableVersions"))
        self.tagged, self.tag = span(j.get("taggedVersions")), j.get("tag")
        self.flexible = span(j["flexibleVersions"]) if "flexibleVersions" in j else None
        self.array = kind.startswith("[]")
        self.kind = kind[2:] if self.array else kind
        fields = j.get("fields") or structs.get(self.kind)
        self.fields = [Field(f, structs) for f in fields] if fields else None
        self.default = j.get("default")
    def zero(self, version):
        d = self.default
        if self.array: return None if d == "null" else []
        if self.fields is not None: return None if d == "null" else {f.name: f.zero(version) for f in self.fields if within(version, f.versions)}
        if d == "null": return None
        if self.kind in ("string",): return d or ""
        if self.kind in ("bytes", "records"): return b""
        if self.kind == "uuid": return uuid.UUID(int=0)
        if self.kind == "bool": return d in (True, "true")
        if self.kind == "float64": return float(d or 0)
        return int(str(d), 0) if d not in (None, "") else 0

INTS = {"int8": ">b", "int16": ">h", "uint16": ">H", "int32": ">i", "uint32": ">I", "int64": ">q", "float64": ">d"}

class Writer:
    def __init__(self): self.out = bytearray()
    def uvarint(self, n):
        while n >= 0x80: self.out.append(n & 0x7f | 0x80); n >>= 7
        self.out.append(n)
    def count(self, n, flexible, short=False):
        """A length, or -1 for null."""
        if flexible: self.uvarint(n + 1)
        else: self.out += struct.pack(">h" if short else ">i", n)
    def value(self, f, v, version, flexible):
        if f.flexible is not None: flexible = flexible and within(version, f.flexible)
        if f.array:
            if v is None: return self.count(-1, flexible)
            self.count(len(v), flexible)
            for x in v: self.single(f, x, version, flexible)
        else: self.single(f, v, version, flexible)
    def single(self, f, v, version, flexible):
        if f.fields is not None:
            if not f.array and within(version, f.nullable):
                self.out += b"\xff" if v is None else b"\x01"
                if v is None: return
            return self.fields(f.fields, v, version, flexible)
        k = f.kind
        if k in INTS: self.out += struct.pack(INTS[k], v)
        elif k == "bool": self.out.append(1 if v else 0)
        elif k == "uuid": self.out += v.bytes
        elif v is None: self.count(-1, flexible, k == "string")
        else:
            b = v.encode("utf-8", "surrogateescape") if isinstance(v, str) else bytes(v)
            self.count(len(b), flexible, k == "string"); self.out += b
    def fields(self, fields, d, version, flexible):
        tagged = []
        for f in fields:
            if not within(version, f.versions): continue
            if flexible and within(version, f.tagged):
                if f.name in d and d[f.name] != f.zero(version): tagged.append(f)
            else: self.value(f, d[f.name] if f.name in d else f.zero(version), version, flexible)
        if flexible:
            extra = d.get("_tags", [])
            self.uvarint(len(tagged) + len(extra))
            for f in sorted(tagged, key=lambda f: f.tag):
                w = Writer(); w.value(f, d[f.name], version, flexible)
                self.uvarint(f.tag); self.uvarint(len(w.out)); self.out += w.out
            for tag, b in extra: self.uvarint(tag); self.uvarint(len(b)); self.out += b

class Reader:
    def __init__(self, data): self.data, self.pos = data, 0
    def take(self, n):
        if n < 0 or self.pos + n > len(self.data): raise Bad(f"{n} bytes wanted at {self.pos} of {len(self.data)}")
        self.pos += n
        return self.data[self.pos - n:self.pos]
    def uvarint(self):
        n = shift = 0
        while True:
            b = self.take(1)[0]; n |= (b & 0x7f) << shift; shift += 7
            if b < 0x80: return n
            if shift > 35: raise Bad("a varint without end")
    def count(self, flexible, short=False):
        if flexible: return self.uvarint() - 1
        return struct.unpack(">h" if short else ">i", self.take(2 if short else 4))[0]
    def value(self, f, version, flexible):
        if f.flexible is not None: flexible = flexible and within(version, f.flexible)
        if not f.array: return self.single(f, version, flexible)
        n = self.count(flexible)
        if n == -1:
            if not within(version, f.nullable): raise Bad(f"{f.name} is null")
            return None
        if n < 0 or n > len(self.data): raise Bad(f"{f.name} has {n} elements")
        return [self.single(f, version, flexible) for _ in range(n)]
    def single(self, f, version, flexible):
        if f.fields is not None:
            if not f.array and within(version, f.nullable) and struct.unpack(">b", self.take(1))[0] < 0: return None
            return self.fields(f.fields, version, flexible)
        k = f.kind
        if k in INTS: return struct.unpack(INTS[k], self.take(struct.calcsize(INTS[k])))[0]
        if k == "bool": return self.take(1)[0] != 0
        if k == "uuid": return uuid.UUID(bytes=bytes(self.take(16)))
        n = self.count(flexible, k == "string")
        if n == -1:
            if not within(version, f.nullable) and k != "records": raise Bad(f"{f.name} is null")
            return None
        b = bytes(self.take(n))
        return b.decode("utf-8") if k == "string" else b
    def fields(self, fields, version, flexible):
        d = {}
        for f in fields:
            if within(version, f.versions):
                d[f.name] = f.zero(version) if flexible and within(version, f.tagged) else self.value(f, version, flexible)
        if flexible:
            by_tag = {f.tag: f for f in fields if f.tag is not None and within(version, f.tagged)}
            for _ in range(self.uvarint()):
                tag, n = self.uvarint(), self.uvarint()
                part = Reader(self.take(n))
                if tag in by_tag:
                    d[by_tag[tag].name] = part.value(by_tag[tag], version, flexible)
                    if part.pos != n: raise Bad(f"tag {tag} leaves {n - part.pos} bytes")
                else: d.setdefault("_tags", []).append((tag, bytes(part.data)))
        return d

class Message:
    def __init__(self, j):
        structs = {s["name"]: s["fields"] for s in j.get("commonStructs", [])}
        self.name, self.versions, self.flexible = j["name"], span(j["validVersions"]), span(j.get("flexibleVersions"))
        self.fields = [Field(f, structs) for f in j["fields"]]
    def write(self, version, d):
        w = Writer(); w.fields(self.fields, d, version, within(version, self.flexible))
        return bytes(w.out)
    def read(self, version, data):
        r = Reader(data); d = r.fields(self.fields, version, within(version, self.flexible))
        if r.pos != len(data): raise Bad(f"{len(data) - r.pos} bytes behind {self.name} v{version}")
        return d

class Api:
    def __init__(self, key, name, request, response):
        self.key, self.name, self.request, self.response = key, name, request, response
    def frame(self, version, correlation, client, body, raw=None):
        """A whole request with its length; `raw` stands for the body where it should not be what it says."""
        flexible = within(version, self.request.flexible)
        head = struct.pack(">hhi", self.key, version, correlation)
        head += struct.pack(">h", -1) if client is None else struct.pack(">h", len(client)) + client.encode()
        data = head + (b"\0" if flexible else b"") + (self.request.write(version, body) if raw is None else raw)
        return struct.pack(">i", len(data)) + data
    def answer(self, version, frame):
        """(correlation, body) of an answer."""
        r = Reader(frame); correlation = struct.unpack(">i", r.take(4))[0]
        if within(version, self.response.flexible) and self.key != 18:
            for _ in range(r.uvarint()): r.uvarint(); r.take(r.uvarint())
        body = frame[r.pos:]
        if self.key == 18 and version > 0:
            # Whoever does not know the version answers in version 0.
            try: return correlation, self.response.read(version, body)
            except Bad: return correlation, {**self.response.read(0, body), "_version": 0}
        return correlation, self.response.read(version, body)

NAMES = {0: "Produce", 1: "Fetch", 2: "ListOffsets", 3: "Metadata", 8: "OffsetCommit", 9: "OffsetFetch", 10: "FindCoordinator", 11: "JoinGroup", 12: "Heartbeat",
    13: "LeaveGroup", 14: "SyncGroup", 15: "DescribeGroups", 16: "ListGroups", 17: "SaslHandshake", 18: "ApiVersions", 19: "CreateTopics", 20: "DeleteTopics",
    21: "DeleteRecords", 22: "InitProducerId", 23: "OffsetForLeaderEpoch", 24: "AddPartitionsToTxn", 25: "AddOffsetsToTxn", 26: "EndTxn", 27: "WriteTxnMarkers",
    28: "TxnOffsetCommit", 29: "DescribeAcls", 30: "CreateAcls", 31: "DeleteAcls", 32: "DescribeConfigs", 33: "AlterConfigs", 34: "AlterReplicaLogDirs",
    35: "DescribeLogDirs", 36: "SaslAuthenticate", 37: "CreatePartitions", 42: "DeleteGroups", 43: "ElectLeaders", 44: "IncrementalAlterConfigs",
    45: "AlterPartitionReassignments", 46: "ListPartitionReassignments", 47: "OffsetDelete", 48: "DescribeClientQuotas", 49: "AlterClientQuotas",
    50: "DescribeUserScramCredentials", 51: "AlterUserScramCredentials", 55: "DescribeQuorum", 57: "UpdateFeatures", 60: "DescribeCluster", 61: "DescribeProducers",
    65: "DescribeTransactions", 66: "ListTransactions", 68: "ConsumerGroupHeartbeat", 69: "ConsumerGroupDescribe", 74: "ListConfigResources", 75: "DescribeTopicPartitions"}

def _f(name, kind, versions="0+", **more): return {"name": name, "type": kind, "versions": versions, **more}
_PARTS = [_f("TopicId", "uuid"), _f("Partitions", "[]int32")]
_NAMED = [_f("TopicId", "uuid"), _f("TopicName", "string"), _f("Partitions", "[]int32")]
_ASSIGNMENT = [_f("TopicPartitions", "[]TopicPartitions", fields=_NAMED)]
_N = {"nullableVersions": "0+", "default": "null"}
OWN = {
    "ConsumerGroupHeartbeatRequest": ("0-1", [_f("GroupId", "string"), _f("MemberId", "string"), _f("MemberEpoch", "int32"), _f("InstanceId", "string", **_N),
        _f("RackId", "string", **_N), _f("RebalanceTimeoutMs", "int32", default="-1"), _f("SubscribedTopicNames", "[]string", **_N),
        _f("SubscribedTopicRegex", "string", "1+", nullableVersions="1+", default="null"), _f("ServerAssignor", "string", **_N),
        _f("TopicPartitions", "[]TopicPartitions", fields=_PARTS, **_N)]),
    "ConsumerGroupHeartbeatResponse": ("0-1", [_f("ThrottleTimeMs", "int32"), _f("ErrorCode", "int16"), _f("ErrorMessage", "string", **_N), _f("MemberId", "string", **_N),
        _f("MemberEpoch", "int32"), _f("HeartbeatIntervalMs", "int32"), _f("Assignment", "Assignment", fields=[_f("TopicPartitions", "[]TopicPartitions", fields=_PARTS)], **_N)]),
    "ConsumerGroupDescribeRequest": ("0-1", [_f("GroupIds", "[]string"), _f("IncludeAuthorizedOperations", "bool")]),
    "ConsumerGroupDescribeResponse": ("0-1", [_f("ThrottleTimeMs", "int32"), _f("Groups", "[]DescribedGroup", fields=[_f("ErrorCode", "int16"), _f("ErrorMessage", "string", **_N),
        _f("GroupId", "string"), _f("GroupState", "string"), _f("GroupEpoch", "int32"), _f("AssignmentEpoch", "int32"), _f("AssignorName", "string"),
        _f("Members", "[]Member", fields=[_f("MemberId", "string"), _f("InstanceId", "string", **_N), _f("RackId", "string", **_N), _f("MemberEpoch", "int32"),
            _f("ClientId", "string"), _f("ClientHost", "string"), _f("SubscribedTopicNames", "[]string"), _f("SubscribedTopicRegex", "string", **_N),
            _f("Assignment", "Assignment", fields=_ASSIGNMENT), _f("TargetAssignment", "Assignment", fields=_ASSIGNMENT), _f("MemberType", "int8", "1+", default="-1")]),
        _f("AuthorizedOperations", "int32", default="-2147483648")])]),
}

def _load(name):
    if name in OWN: return Message({"name": name, "validVersions": OWN[name][0], "flexibleVersions": "0+", "fields": OWN[name][1]})
    return Message(load_json(name))

APIS = {name: Api(key, name, _load(name + "Request"), _load(name + "Response")) for key, name in NAMES.items()}
BY_KEY = {a.key: a for a in APIS.values()}

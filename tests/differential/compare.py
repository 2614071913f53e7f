"""Two answers side by side: ids translated by a bijection, times and addresses taken out, the rest compared.

Always: an id that was paired once must come back paired. What differs is a list of (path, Kafka's value, ours).
"""
import json, time, uuid
import batches

GONE = "<not there>"
# Fields that hold an id, and the kind it is of.
IDS = {"ProducerId": "producer", "V3AndBelowProducerId": "producer", "TopicId": "topic", "MemberId": "member", "SessionId": "session"}
# What tells an element of an array from its neighbours.
KEYS = ["Name", "TopicName", "Topic", "TopicId", "PartitionIndex", "Partition", "Index", "GroupId", "MemberId", "GroupInstanceId", "ResourceType", "ResourceName", "TransactionalId",
    "ProducerId", "NodeId", "BrokerId", "Key", "ApiKey", "User", "UserName", "Mechanism", "PatternType", "Principal", "Host", "Operation", "PermissionType", "PrincipalType", "PrincipalName", "LogDir", "Source", "EntityType", "EntityName"]
TIMES = {"ThrottleTimeMs", "LogAppendTimeMs", "TransactionStartTimeMs"}
WORDS = {"ErrorMessage", "BatchIndexErrorMessage"}

class Ids:
    """Which id of ours stands for which of Kafka's."""
    def __init__(self): self.ours, self.theirs = {}, {}
    def pair(self, kind, k, v):
        """Whether the two stand for each other, learning a new pair."""
        if (kind, k) in self.ours or (kind, v) in self.theirs: return self.ours.get((kind, k)) == v and self.theirs.get((kind, v)) == k
        if k == v: return True
        if literal(kind, k) or literal(kind, v): return False
        self.ours[kind, k], self.theirs[kind, v] = v, k
        return True
    def to_ours(self, kind, k): return self.ours.get((kind, k), k)
    def to_theirs(self, kind, v): return self.theirs.get((kind, v), v)

def literal(kind, x): return x in (None, "", -1, uuid.UUID(int=0)) or (kind == "session" and x == 0)

def id_kind(api, name):
    if api == "JoinGroup" and name == "Leader": return "member"
    return IDS.get(name)

def translate(api, value, ids, name=None):
    """A request made of Kafka's ids, with ours in their places."""
    if isinstance(value, dict): return {k: translate(api, v, ids, k) for k, v in value.items()}
    if isinstance(value, list):
        kind = {"TopicIds": "topic", "ProducerIdFilters": "producer"}.get(name)
        return [translate(api, v, ids, name) if kind is None else ids.to_ours(kind, v) for v in value]
    if isinstance(value, (batches.Records, batches.Raw)): return value.build(lambda pid: ids.to_ours("producer", pid))
    kind = id_kind(api, name)
    return ids.to_ours(kind, value) if kind else value

def plain(value):
    """A request as Kafka gets it."""
    if isinstance(value, dict): return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list): return [plain(v) for v in value]
    return value.build(lambda pid: pid) if isinstance(value, (batches.Records, batches.Raw)) else value

def tidy(api, value, side, name=None):
    """An answer without times and addresses, its record batches opened."""
    if isinstance(value, dict):
        out = {k: tidy(api, v, side, k) for k, v in value.items()}
        if "Host" in out and "Port" in out and "NodeId" in out and (value["Host"], value["Port"]) == side.address: out["Host"], out["Port"] = "its own", "its own"
        if "Host" in out and "Port" in out and "BrokerId" in out and (value["Host"], value["Port"]) == side.address: out["Host"], out["Port"] = "its own", "its own"
        return out
    if isinstance(value, list): return [tidy(api, v, side, name) for v in value]
    if name == "Port" and api == "DescribeQuorum": return "its own"
    # How often the coordinator's own topic has changed its leader.
    if name == "CoordinatorEpoch" and value >= 0: return "its own"
    if name in TIMES and isinstance(value, int): return value if value <= 0 else "a time"
    if name in ("LastTimestamp", "Timestamp") and abs(value / 1000 - time.time()) < 86400: return "a time"
    if name in WORDS: return "words"
    # Other programs write to the disk between one answer and the other.
    if name == "UsableBytes" and value >= 0: return "some"
    if name in ("ClusterId", "LogDir"): return value if value in (None, "") else "its own"
    if name == "Records" and isinstance(value, bytes): return batches.read(value)
    if name in ("Metadata", "Assignment", "AuthBytes") and isinstance(value, bytes): return value.hex()
    return value

def differences(api, k, v, ids, path=""):
    out = []
    if isinstance(k, dict) and isinstance(v, dict):
        for name in list(k) + [n for n in v if n not in k]:
            here = f"{path}.{name}" if path else name
            a, b = k.get(name, GONE), v.get(name, GONE)
            kind = id_kind(api, name)
            if kind and a is not GONE and b is not GONE:
                if not ids.pair(kind, a, b): out.append((here, a, b))
            else: out += differences(api, a, b, ids, here)
    elif isinstance(k, list) and isinstance(v, list):
        if any(isinstance(x, dict) for x in k + v): out += arrays(api, k, v, ids, path)
        elif sorted(map(str, k)) != sorted(map(str, v)): out.append((path, k, v))
    elif k != v or type(k) is not type(v): out.append((path, k, v))
    return out

def arrays(api, ks, vs, ids, path):
    def key(d, ours):
        if not isinstance(d, dict): return None
        found = []
        for name in KEYS:
            if name in d:
                kind = id_kind(api, name)
                found.append((name, str(ids.to_theirs(kind, d[name]) if ours and kind else d[name])))
        return tuple(found)
    if path.endswith("Records"):
        left, right = dict(enumerate(ks)), dict(enumerate(vs))
    else:
        a, b = [key(d, False) for d in ks], [key(d, True) for d in vs]
        if len(set(a)) != len(a) or len(set(b)) != len(b) or () in a: left, right = {}, {}
        else: left, right = dict(zip(a, ks)), dict(zip(b, vs))
        ids_in_keys = not left or any(n in IDS for t in a + b for n, _ in t)
        if ids_in_keys:
            # Elements that cannot be told apart, or whose ids are new: in the order of all they say.
            def order(d): return json.dumps({k: v for k, v in d.items() if id_kind(api, k) is None} if isinstance(d, dict) else d, default=str, sort_keys=True)
            both = [w for w in left if w in right]
            l, r = [(w, d) for w, d in zip(a, ks) if w not in both], [(w, d) for w, d in zip(b, vs) if w not in both]
            l.sort(key=lambda x: order(x[1])); r.sort(key=lambda x: order(x[1]))
            left, right = {w: left[w] for w in both}, {w: right[w] for w in both}
            left.update((i, d) for i, (_, d) in enumerate(l)); right.update((i, d) for i, (_, d) in enumerate(r))
    out = []
    for which in list(left) + [w for w in right if w not in left]:
        name = ",".join(v for _, v in which) if isinstance(which, tuple) else which
        out += differences(api, left.get(which, GONE), right.get(which, GONE), ids, f"{path}[{name}]")
    return out

def shares(answer):
    """What of each group's target does not hang on the order of ids: how many partitions the members get, and all of them together."""
    out = {}
    for g in answer["Groups"]:
        targets = [[(t["TopicName"], p) for t in m["TargetAssignment"]["TopicPartitions"] for p in t["Partitions"]] for m in g["Members"]]
        out[g["GroupId"]] = (sorted(map(len, targets)), sorted(p for t in targets for p in t))
    return out

"""The requests: drawn by chance from what exists, what once existed and what never could.

Owns what the run knows of the brokers (topics, producers, members, transactions), always in Kafka's ids; an
exchange's `after` learns from Kafka's answer. Nothing here looks at the other side.
"""
import struct, time, uuid
import batches
from batches import Raw, Records

NIL = uuid.UUID(int=0)
STAMP = 1_700_000_000_000

class Exchange:
    def __init__(self, api, version, body, line=0, after=None, may_wait=False, settle=None, raw=None, about=(), client="diff"):
        self.api, self.version, self.body, self.line, self.after = api, version, body, line, after
        self.may_wait, self.settle, self.raw, self.about, self.client, self.apart = may_wait, settle, raw, set(about), client, False

class Member:
    """One classic member: its connection, and what Kafka told it."""
    def __init__(self, line): self.line, self.id, self.generation, self.leader, self.members, self.instance, self.joined, self.synced, self.busy = line, "", -1, False, [], None, False, False, False

class Generator:
    def __init__(self, chance, ranges):
        self.chance, self.ranges = chance, ranges
        self.topics, self.counter = {}, 0       # name -> (id, partitions)
        self.gone = []                          # ids of topics that were deleted
        self.producers = []                     # {"pid", "epoch", "next": {(topic, partition): sequence}}
        self.transactional = {}                 # transactional id -> {"pid", "epoch", "next", "parts", "groups"}
        self.groups = {}                        # name -> {line: Member}
        self.born, self.clock, self.locked = {}, 0, 0
        self.modern = {}                        # name -> {member id: {"epoch", "parts"}}
        self.assignors = {}                     # of these, which assignor all members of one like
        self.dead = set()                       # names not used any more, since the brokers disagree about them
        self.codecs = batches.available()
        self.tables = [(w, m) for api, w, m in [("Produce", 14, self.produce), ("Fetch", 10, self.fetch), ("ListOffsets", 5, self.list_offsets), ("Metadata", 4, self.metadata),
            ("CreateTopics", 4, self.create_topics), ("DeleteTopics", 2, self.delete_topics), ("CreatePartitions", 2, self.create_partitions), ("DeleteRecords", 2, self.delete_records),
            ("InitProducerId", 4, self.init_producer), ("OffsetForLeaderEpoch", 2, self.leader_epoch), ("FindCoordinator", 1, self.find_coordinator), ("ApiVersions", 1, self.api_versions),
            ("DescribeConfigs", 3, self.describe_configs), ("DescribeCluster", 1, self.describe_cluster), ("JoinGroup", 14, self.classic_group), ("OffsetCommit", 5, self.offset_commit),
            ("OffsetFetch", 4, self.offset_fetch), ("DescribeGroups", 3, self.describe_groups), ("ListGroups", 2, self.list_groups), ("DeleteGroups", 2, self.delete_groups),
            ("OffsetDelete", 2, self.offset_delete), ("AddPartitionsToTxn", 10, self.transaction), ("DescribeTransactions", 2, self.describe_transactions), ("ListTransactions", 2, self.list_transactions),
            ("DescribeProducers", 2, self.describe_producers), ("AlterConfigs", 2, self.alter_configs), ("IncrementalAlterConfigs", 3, self.incremental), ("DescribeLogDirs", 1, self.log_dirs),
            ("DescribeTopicPartitions", 2, self.topic_partitions), ("ListConfigResources", 1, self.config_resources), ("ElectLeaders", 1, self.elect), ("AlterPartitionReassignments", 1, self.reassign),
            ("ListPartitionReassignments", 1, self.list_reassignments), ("AlterReplicaLogDirs", 1, self.alter_dirs), ("DescribeAcls", 2, self.describe_acls), ("CreateAcls", 2, self.create_acls),
            ("DeleteAcls", 2, self.delete_acls), ("DescribeClientQuotas", 1, self.describe_quotas), ("AlterClientQuotas", 1, self.alter_quotas),
            ("DescribeUserScramCredentials", 1, self.describe_scram), ("AlterUserScramCredentials", 1, self.alter_scram), ("SaslHandshake", 1, self.handshake), ("SaslAuthenticate", 1, self.authenticate),
            ("ConsumerGroupHeartbeat", 8, self.modern_group), ("ConsumerGroupDescribe", 2, self.modern_describe), ("DescribeQuorum", 1, self.quorum), ("UpdateFeatures", 1, self.features),
            ("WriteTxnMarkers", 1, self.markers)] if api in ranges]
    # -- chance
    def often(self, p=0.8): return self.chance.random() < p
    def one(self, *of): return self.chance.choice(of)
    def version(self, api, at_least=0, at_most=99):
        a, b = self.ranges[api]
        return self.chance.randint(max(a, min(at_least, b)), max(a, min(b, at_most)))
    def next(self):
        # Rules about names that are in use shut everybody out: for a while only.
        if self.locked and self.locked <= self.clock: self.locked = 0; return self.unlock()
        self.clock += 1
        if self.often(0.03): return self.broken()
        if self.often(0.02): return self.unknown_version()
        weights, makers = zip(*self.tables)
        return self.chance.choices(makers, weights)[0]()
    def line(self): return self.chance.randrange(3)
    # -- names
    def topic(self, alive=0.85):
        if self.topics and self.often(alive): return self.chance.choice(sorted(self.topics))
        return self.one("ghost", "ghost", "", ".", "..", "with space", "x" * 249, "x" * 250, "sl/ash", "__consumer_offsets", "née")
    def read_topic(self, alive=0.85):
        """Any topic but those the brokers keep for themselves, whose contents are their own."""
        t = self.topic(alive)
        return "ghost" if t.startswith("__") else t
    def live_topic(self): return self.chance.choice(sorted(self.topics)) if self.topics else "ghost"
    def partition(self, topic):
        n = self.topics.get(topic, (NIL, 1))[1]
        return self.chance.randrange(n) if self.often(0.92) else self.one(-1, n, n + 1, 2147483647, -2147483648)
    def topic_id(self, topic):
        if topic in self.topics: return self.topics[topic][0]
        if topic == "ghost" and self.gone: return self.gone[-1]
        return uuid.uuid5(NIL, topic) if topic else NIL
    def named(self, version, since, topic, name="Name", **rest):
        return {"TopicId": self.topic_id(topic), **rest} if version >= since else {name: topic, **rest}
    def fresh(self, what): self.counter += 1; return f"{what}{self.counter}"
    def group(self):
        alive = sorted(g for g in self.groups if g not in self.dead)
        if len(alive) < 4: g = self.fresh("g"); self.groups[g] = {}; return g
        return self.chance.choice(alive)
    def any_group(self):
        roll = self.chance.random()
        if roll < 0.77: return self.group()
        alive = sorted(g for g in self.modern if g not in self.dead)
        return self.chance.choice(alive) if roll < 0.85 and alive else self.one("ghost", "", "née", "g with space")
    def distinct(self, make, low, high, twice=False):
        out = []
        for _ in range(self.chance.randint(low, high)):
            x = make()
            if x not in out or twice and self.often(0.2): out.append(x)
        return out
    # -- broken frames
    def broken(self):
        e = self.chance.choices([m for _, m in self.tables], [w for w, _ in self.tables])[0]()
        if e is None or e.may_wait or e.api in ("Produce",) and not self.often(0.3): return None
        from codec import APIS, Bad
        import compare
        whole = APIS[e.api].request.write(e.version, compare.plain(e.body))
        kind = self.chance.randrange(3)
        if kind == 0 and whole: raw = whole[:self.chance.randrange(len(whole))]
        elif kind == 1: raw = whole + bytes(self.chance.randrange(256) for _ in range(self.chance.randint(1, 9)))
        else: raw = b"\x7f\xff\xff\xff"
        # Ids inside would need translating; what holds none can be sent as it is.
        text = repr(e.body)
        if any(w in text for w in ("UUID", "MemberId", "ProducerId", "Records")): return None
        # Bytes behind a request are not read.
        return Exchange(e.api, e.version, {"broken": raw.hex()[:200], **(e.body if kind == 1 else {})}, 3, raw=raw, settle=e.settle)
    def unknown_version(self):
        api = self.chance.choice(sorted(self.ranges))
        v = self.one(-1, 99, 32767) if api != "ApiVersions" else self.one(99, 32767)
        return Exchange(api, v, {"unknown version": v}, 3, raw=b"\0" * 8)
    # -- producing
    def rows(self, n): return [(i, None if self.often(0.15) else b"k%d" % self.chance.randrange(5), None if self.often(0.1) else b"v" * self.chance.randint(0, 40), [(b"h", b"1"), (b"h", None)] if self.often(0.2) else []) for i in range(n)]
    def batch(self):
        n = self.chance.randint(1, 4)
        b = {"rows": self.rows(n), "stamp": STAMP + self.chance.randrange(1_000_000), "codec": self.chance.choice(self.codecs) if self.often(0.4) else 0}
        if self.often(0.85): return b
        bad = self.one({"bad_crc": True}, {"magic": 1}, {"magic": 0}, {"magic": 3}, {"count": n + 1}, {"count": 0}, {"count": -1}, {"last_delta": n}, {"last_delta": n + 5}, {"cut": 1}, {"cut": 40}, {"length": 5}, {"length": 49},
            {"length": 1 << 30}, {"length": -1}, {"rows": [], "last_delta": 0}, {"rows": []}, {"control": True}, {"append_time": True}, {"attributes": 7}, {"attributes": 5}, {"attributes": 64}, {"attributes": 1 << 10},
            {"behind": b"junk"}, {"deltas": {0: 5}}, {"base": 17}, {"base": -5}, {"leader_epoch": 9}, {"stamp": -1}, {"stamp": 4_000_000_000_000}, {"max_stamp": 1}, {"body": b"", "count": 1, "last_delta": 0},
            {"codec": 1, "body": b"not gzip"}, {"txn": True}, {"pid": 999_999, "epoch": 0, "sequence": 0}, {"pid": 1, "epoch": -1, "sequence": -1}, {"pid": -1, "epoch": 0, "sequence": 5}, {"stamp": -1, "max_stamp": -1})
        return {**b, **bad}
    def records(self):
        roll = self.chance.random()
        if roll < 0.88: return Records([self.batch()])
        if roll < 0.93: return Records([self.batch(), self.batch()])
        if roll < 0.95: return None
        if roll < 0.97: return Raw(b"")
        return Raw(bytes(self.chance.randrange(256) for _ in range(self.chance.choice([3, 16, 61, 80]))))
    def produce_body(self, v, parts, acks=-1, txn=None):
        topics = {}
        for t, p, r in parts: topics.setdefault(t, []).append({"Index": p, "Records": r})
        return {"TransactionalId": txn, "Acks": acks, "TimeoutMs": 5000, "TopicData": [self.named(v, 13, t, PartitionData=ps) for t, ps in topics.items()]}
    def produce(self):
        if self.producers and self.often(0.4): return self.idempotent()
        v = self.version("Produce")
        acks = self.one(-1, -1, -1, 1, 1, 2, -2) if self.often(0.3) else -1
        parts = {}
        for _ in range(self.chance.randint(1, 3)):
            t = self.topic(0.93); parts[t, self.partition(t)] = self.records()
        txn = "nobody" if self.often(0.02) else None
        return Exchange("Produce", v, self.produce_body(v, [(t, p, r) for (t, p), r in parts.items()], acks, txn), self.line(), about=[t for t, _ in parts], settle="auto")
    def idempotent(self):
        p = self.chance.choice(self.producers[-6:])
        t = self.live_topic(); n = self.partition(t); v = self.version("Produce")
        want = p["next"].get((t, n), 0)
        rows = self.rows(self.chance.randint(1, 3))
        b = {"rows": rows, "stamp": STAMP + self.chance.randrange(1000), "pid": p["pid"], "epoch": p["epoch"], "sequence": want}
        if self.often(0.3): b.update(self.one({"sequence": want + 1}, {"sequence": want + 7}, {"sequence": max(want - len(rows), 0)}, {"sequence": 0}, {"sequence": -1}, {"epoch": p["epoch"] + 1}, {"epoch": p["epoch"] + 1, "sequence": 0},
            {"epoch": max(p["epoch"] - 1, 0)}, {"sequence": 2147483647}, {"txn": True}, {"epoch": 32767, "sequence": 0}))
        def after(k):
            r = (k.get("Responses") or [{}])[0].get("PartitionResponses", [{}])[0]
            if r.get("ErrorCode") == 0 and b["sequence"] >= 0:
                if b["epoch"] == p["epoch"] and b["sequence"] == want: p["next"][t, n] = (want + len(rows)) % (1 << 31)
                elif b["epoch"] != p["epoch"] or b["sequence"] != want: p["next"][t, n] = max(p["next"].get((t, n), 0), b["sequence"] + len(rows)) if b["epoch"] == p["epoch"] else p["next"].get((t, n), 0)
        return Exchange("Produce", v, self.produce_body(v, [(t, n, Records([b]))]), self.line(), after, about=[t])
    # -- reading
    def fetch(self):
        v = self.version("Fetch")
        topics = {}
        for _ in range(self.chance.randint(1, 3)):
            t = self.read_topic(0.93)
            p = {"Partition": self.partition(t), "CurrentLeaderEpoch": self.one(-1, -1, -1, 0, 0, 5, -7), "FetchOffset": self.one(0, 0, 0, 1, 2, 3, 5, 8, 13, -1, -2, 1000, 1 << 40), "LastFetchedEpoch": self.one(-1, -1, -1, 0, 3),
                "LogStartOffset": self.one(-1, 0), "PartitionMaxBytes": self.one(1 << 20, 1 << 20, 1 << 20, 1, 100, 300, 0)}
            if v >= 18: p["HighWatermark"] = (1 << 63) - 1
            topics.setdefault(t, [])
            if p["Partition"] not in [q["Partition"] for q in topics[t]]: topics[t].append(p)
        body = {"MaxWaitMs": self.one(0, 0, 0, 20, -1), "MinBytes": self.one(0, 0, 1, 1, 1, 10, -1), "MaxBytes": self.one(1 << 24, 1 << 24, 1 << 24, 1, 0, 200), "IsolationLevel": self.one(0, 0, 1, 1, 2) if self.often(0.3) else self.one(0, 1), "SessionId": 0, "SessionEpoch": -1,
            "Topics": [self.named(v, 13, t, "Topic", Partitions=ps) for t, ps in topics.items()], "ForgottenTopicsData": [], "RackId": self.one("", "", "rack")}
        roll = self.chance.random()
        if roll < 0.04 and v >= 7: body.update(SessionId=self.one(0, 0, 12345, -1), SessionEpoch=self.one(0, 1, 5, -1))
        elif roll < 0.06: body["Topics"] = []
        if v < 15: body["ReplicaId"] = -1
        if v >= 15 and self.often(0.02): body["ReplicaState"] = {"ReplicaId": 3, "ReplicaEpoch": 1}
        return Exchange("Fetch", v, body, self.line(), about=topics)
    def list_offsets(self):
        v = self.version("ListOffsets")
        topics = {}
        for _ in range(self.chance.randint(1, 4)):
            t = self.read_topic()
            n = self.partition(t)
            if n in [q["PartitionIndex"] for q in topics.get(t, [])]: continue
            topics.setdefault(t, []).append({"PartitionIndex": n, "CurrentLeaderEpoch": self.one(-1, -1, 0, 4, -3), "Timestamp": self.one(-1, -2, -3, -4, -5, -6, -7, 0, STAMP, STAMP + 500_000, STAMP + 999_999, 1 << 60) if self.often(0.5) else self.one(-1, -2, -3)})
        return Exchange("ListOffsets", v, {"ReplicaId": self.one(-1, -1, -1, -1, -2, 5), "IsolationLevel": self.one(0, 0, 1, 1, 7) if self.often(0.2) else self.one(0, 1), "Topics": [{"Name": t, "Partitions": ps} for t, ps in topics.items()], "TimeoutMs": 1000}, self.line(), about=topics)
    def leader_epoch(self):
        v = self.version("OffsetForLeaderEpoch")
        ts = self.distinct(self.read_topic, 1, 3)
        return Exchange("OffsetForLeaderEpoch", v, {"ReplicaId": self.one(-2, -1, -1, 5), "Topics": [{"Topic": t, "Partitions": [{"Partition": self.partition(t), "CurrentLeaderEpoch": self.one(-1, 0, 0, 3, -9), "LeaderEpoch": self.one(0, 0, -1, 1, 5, -4)}]} for t in ts]}, self.line(), about=ts)
    # -- the cluster
    def metadata(self):
        v = self.version("Metadata")
        auto = v < 4 or self.often(0.03)
        if self.often(0.15): topics, names = None if v >= 1 else [], []
        else:
            names = self.distinct(lambda: self.topic(0.95 if v < 4 else 0.8) , 0 if v >= 1 else 1, 4)
            if auto: names = [n for n in names if n in self.topics or self.often(0.3)] or [self.live_topic()]
            topics = [{"Name": n} for n in names]
            if v >= 10:
                for t in topics: t["TopicId"] = NIL
                if self.often(0.3): topics = [{"Name": self.one(None, None, None, n) , "TopicId": self.topic_id(n)} for n in names]
            if v >= 10:
                for t in topics:
                    if t["Name"] is None and t["TopicId"] == NIL and self.often(0.9): t["Name"] = "ghost"
        return Exchange("Metadata", v, {"Topics": topics, "AllowAutoTopicCreation": auto, "IncludeClusterAuthorizedOperations": self.often(0.2), "IncludeTopicAuthorizedOperations": self.often(0.2)}, self.line(), about=names, settle="auto" if auto else None)
    def configs(self, names=None):
        known = [("cleanup.policy", self.one("delete", "compact", "compact,delete", "nonsense", "", "delete,delete", " delete , compact", "compact, compact", "delete,", ",")), ("retention.ms", self.one("3600000", "-1", "-2", "x", "", None, " 3600000", "+5000000")), ("segment.bytes", self.one("1048576", "1073741824", "0", "13", "99999999999")),
            ("compression.type", self.one("producer", "uncompressed", "zip", " producer ")), ("max.message.bytes", self.one("1000", "1048588", "-1", "100")), ("message.timestamp.type", self.one("CreateTime", "LogAppendTime", "Never")), ("min.insync.replicas", self.one("1", "0", "2")),
            ("unclean.leader.election.enable", self.one("true", "false", "maybe", " FALSE")), ("flush.messages", self.one("1", "0", "9223372036854775807")), ("no.such.setting", "1"), ("retention.bytes", self.one("-1", "1000000", "-5")), ("delete.retention.ms", self.one("0", "-1", "86400000")),
            ("min.cleanable.dirty.ratio", self.one("0.1", "2", "x", "0.5", "0.50", "1", "1e-1", "0.0005")), ("index.interval.bytes", self.one("4096", "-1")), ("preallocate", self.one("true", "false", "2")), ("segment.ms", self.one("604800000", "0", "86400000")), ("file.delete.delay.ms", self.one("60000", "-1")),
            ("message.timestamp.before.max.ms", self.one("9223372036854775807", "-1")), ("message.timestamp.after.max.ms", self.one("3600000", "x")), ("max.compaction.lag.ms", self.one("1", "0", "9223372036854775807")), ("min.compaction.lag.ms", self.one("0", "-1")),
            ("segment.index.bytes", self.one("10485760", "3", "1024")), ("segment.jitter.ms", self.one("0", "-1")), ("flush.ms", self.one("1000", "-1")), ("remote.storage.enable", self.one("false", "true")), ("local.retention.ms", self.one("-2", "5")), ("local.retention.bytes", self.one("-2", "5"))]
        return self.chance.sample(known, self.chance.randint(1, 3))
    def sane_configs(self): return [x for x in [("retention.ms", "-1"), ("cleanup.policy", "delete"), ("max.message.bytes", "1048588"), ("message.timestamp.type", self.one("CreateTime", "LogAppendTime")), ("flush.messages", "1"), ("segment.bytes", "1048576")] if self.often(0.2)]
    def create_topics(self):
        v = self.version("CreateTopics")
        topics = []
        for _ in range(self.chance.randint(1, 2)):
            full = len(self.topics) >= 12
            name = self.topic(0.5) if self.often(0.25) or full else self.fresh(self.one("t", "t.", "t_", "T-"))
            if name == "ghost": name = self.fresh("t")
            t = {"Name": name, "NumPartitions": self.one(1, 2, 3, 4, -1) if self.often(0.9) else self.one(0, -2, -100, 2147483647 if v < 0 else 0), "ReplicationFactor": self.one(1, 1, 1, -1) if self.often(0.93) else self.one(0, 2, 3, -2), "Assignments": [], "Configs": []}
            if t["NumPartitions"] == -1 and v < 4 or t["ReplicationFactor"] == -1 and v < 4: pass
            if self.often(0.07):
                t.update(NumPartitions=self.one(-1, -1, 2), ReplicationFactor=self.one(-1, -1, 1), Assignments=self.one([{"PartitionIndex": 0, "BrokerIds": [0]}], [{"PartitionIndex": 0, "BrokerIds": [0]}, {"PartitionIndex": 1, "BrokerIds": [0]}], [{"PartitionIndex": 1, "BrokerIds": [0]}],
                    [{"PartitionIndex": 0, "BrokerIds": [9]}], [{"PartitionIndex": 0, "BrokerIds": []}], [{"PartitionIndex": 0, "BrokerIds": [0, 0]}], [{"PartitionIndex": 0, "BrokerIds": [0]}, {"PartitionIndex": 0, "BrokerIds": [0]}]))
            if self.often(0.3): t["Configs"] = [{"Name": a, "Value": b} for a, b in (self.configs() if self.often(0.5) else self.sane_configs())]
            topics.append(t)
        if self.often(0.03): topics.append(dict(topics[0]))
        only = self.often(0.12)
        return Exchange("CreateTopics", v, {"Topics": topics, "timeoutMs": 10000, "validateOnly": only}, self.line(), about=[t["Name"] for t in topics], settle="topics")
    def delete_topics(self):
        v = self.version("DeleteTopics")
        few = len(self.topics) < 5
        names = [self.one("ghost", "", "with space", "x" * 250, "__nothing")] if few else self.distinct(self.topic, 1, 2, True)
        names = [n for n in names if n != "__consumer_offsets"] or ["ghost"]
        gone = [self.topics[n][0] for n in names if n in self.topics]
        if v < 6: body = {"TopicNames": names, "TimeoutMs": 10000}
        else: body = {"Topics": [{"Name": n, "TopicId": NIL} if self.often(0.6) else {"Name": self.one(None, None, None, n), "TopicId": self.topic_id(n)} for n in names], "TimeoutMs": 10000}
        return Exchange("DeleteTopics", v, body, self.line(), lambda k: self.gone.extend(gone), about=names, settle="topics")
    def create_partitions(self):
        v = self.version("CreatePartitions")
        ts = self.distinct(lambda: self.topic(0.8), 1, 2)
        ts = [t for t in ts if t != "__consumer_offsets"] or ["ghost"]
        topics = []
        for t in ts:
            n = self.topics.get(t, (NIL, 1))[1]
            x = {"Name": t, "Count": self.one(n + 1, n + 1, n, n - 1, 0, -1) if n < 8 else self.one(n, n - 1), "Assignments": None}
            if self.often(0.2): x["Assignments"] = [{"BrokerIds": self.one([0], [0], [5], [], [0, 0])} for _ in range(self.one(1, 1, 2, 0))]
            topics.append(x)
        return Exchange("CreatePartitions", v, {"Topics": topics, "TimeoutMs": 10000, "ValidateOnly": self.often(0.2)}, self.line(), about=ts, settle="topics")
    def delete_records(self):
        v = self.version("DeleteRecords")
        ts = self.distinct(lambda: self.read_topic(0.8), 1, 2)
        return Exchange("DeleteRecords", v, {"Topics": [{"Name": t, "Partitions": [{"PartitionIndex": self.partition(t), "Offset": self.one(0, 1, 2, 3, -1, -2, 1000)}]} for t in ts], "TimeoutMs": 5000}, self.line(), about=ts)
    def find_coordinator(self):
        v = self.version("FindCoordinator")
        kind = self.one(0, 0, 1, 3, -1) if self.often(0.3) else self.one(0, 1)
        name = lambda: self.one("g1", "x1", "née", "") if self.often(0.9) else "g" * 300
        return Exchange("FindCoordinator", v, {"Key": name(), "KeyType": kind, "CoordinatorKeys": [name() for _ in range(self.chance.randint(0, 3))]} if v >= 4 else {"Key": name(), "KeyType": kind}, self.line())
    def api_versions(self):
        v = self.version("ApiVersions")
        return Exchange("ApiVersions", v, {"ClientSoftwareName": self.one("diff", "diff", "", "a b", "-x", "x-"), "ClientSoftwareVersion": self.one("1.0", "1.0", "", "1 0", "v1.")}, 3)
    def describe_cluster(self):
        v = self.version("DescribeCluster")
        return Exchange("DescribeCluster", v, {"IncludeClusterAuthorizedOperations": self.often(0.5), "EndpointType": self.one(1, 1, 1, 2, 3, 0), "IncludeFencedBrokers": self.often(0.3)}, self.line())
    def describe_configs(self):
        v = self.version("DescribeConfigs")
        def resource():
            kind = self.one(2, 2, 2, 2, 2, 2, 4, 8, 16, 32, 3, 0, -1)
            name = self.topic() if kind == 2 else self.one("0", "0", "", "1", "x") if kind in (4, 8) else self.one("", "g1", "m")
            keys = None if self.often(0.4) else self.one([], ["retention.ms"], ["retention.ms", "cleanup.policy", "no.such.setting"], ["max.message.bytes"])
            if kind in (4, 8): keys = self.one([], ["num.partitions"], ["num.partitions", "no.such.setting"], ["auto.create.topics.enable"])
            return {"ResourceType": kind, "ResourceName": name, "ConfigurationKeys": keys}
        rs = []
        for _ in range(self.chance.randint(1, 3)):
            r = resource()
            if (r["ResourceType"], r["ResourceName"]) not in [(q["ResourceType"], q["ResourceName"]) for q in rs]: rs.append(r)
        return Exchange("DescribeConfigs", v, {"Resources": rs, "IncludeSynonyms": self.often(0.4), "IncludeDocumentation": self.often(0.2)}, self.line(), about=[r["ResourceName"] for r in rs])
    def alter_configs(self):
        v = self.version("AlterConfigs")
        ts = self.distinct(lambda: self.topic(0.85), 1, 2)
        rs = [{"ResourceType": 2 if self.often(0.93) else self.one(0, 3, 8, 77), "ResourceName": t, "Configs": [{"Name": a, "Value": b} for a, b in (self.configs() if self.often(0.5) else self.sane_configs())]} for t in ts]
        return Exchange("AlterConfigs", v, {"Resources": rs, "ValidateOnly": self.often(0.2)}, self.line(), about=ts, settle="a moment")
    def incremental(self):
        v = self.version("IncrementalAlterConfigs")
        ts = self.distinct(lambda: self.topic(0.85), 1, 2)
        rs = [{"ResourceType": 2 if self.often(0.93) else self.one(0, 3, 77), "ResourceName": t, "Configs": [{"Name": a, "ConfigOperation": self.one(0, 0, 1, 2, 3) if self.often(0.5) else 0, "Value": self.one(b, b, None)} for a, b in (self.configs() if self.often(0.6) else self.sane_configs())]} for t in ts]
        # Alone, since Kafka goes through settings in the order of a hash table, and falls over such a one.
        if self.often(0.05): rs[0]["Configs"] = [{"Name": "retention.ms", "ConfigOperation": self.one(4, -1), "Value": "1"}]
        return Exchange("IncrementalAlterConfigs", v, {"Resources": rs, "ValidateOnly": self.often(0.2)}, self.line(), about=ts, settle="a moment")
    def log_dirs(self):
        v = self.version("DescribeLogDirs")
        ts = self.distinct(self.read_topic, 0, 2)
        return Exchange("DescribeLogDirs", v, {"Topics": None if self.often(0.2) else [{"Topic": t, "Partitions": [self.partition(t)]} for t in dict.fromkeys(ts)]}, self.line(), about=ts)
    def topic_partitions(self):
        v = self.version("DescribeTopicPartitions")
        ts = list(dict.fromkeys(self.distinct(self.topic, 0, 3)))
        if not ts: return Exchange("DescribeTopicPartitions", v, {"Topics": [], "ResponsePartitionLimit": 2000, "Cursor": None}, self.line())
        cursor = None if self.often() else {"TopicName": self.topic(), "PartitionIndex": self.one(0, 1, 2, -1)}
        return Exchange("DescribeTopicPartitions", v, {"Topics": [{"Name": t} for t in ts], "ResponsePartitionLimit": self.one(2000, 2000, 1, 3, 0, -1), "Cursor": cursor}, self.line(), about=ts)
    def config_resources(self):
        v = self.version("ListConfigResources")
        return Exchange("ListConfigResources", v, {"ResourceTypes": self.one([], [2], [4], [16], [8], [32], [2, 16], [0], [77])}, self.line())
    def elect(self):
        v = self.version("ElectLeaders")
        ts = list(dict.fromkeys(self.distinct(self.topic, 1, 2)))
        return Exchange("ElectLeaders", v, {"ElectionType": self.one(0, 0, 1, 5) if v >= 1 else 0, "TopicPartitions": None if self.often(0.1) else [{"Topic": t, "Partitions": [self.partition(t)]} for t in ts], "TimeoutMs": 5000}, self.line(), about=ts)
    def reassign(self):
        v = self.version("AlterPartitionReassignments")
        ts = list(dict.fromkeys(self.distinct(self.topic, 1, 2)))
        return Exchange("AlterPartitionReassignments", v, {"TimeoutMs": 5000, "AllowReplicationFactorChange": self.often(0.8), "Topics": [{"Name": t, "Partitions": [{"PartitionIndex": self.partition(t), "Replicas": self.one(None, [0], [0], [5], [], [0, 0], [0, 1], [-1])}]} for t in ts]}, self.line(), about=ts, settle="a moment")
    def list_reassignments(self):
        v = self.version("ListPartitionReassignments")
        ts = list(dict.fromkeys(self.distinct(self.topic, 1, 2)))
        return Exchange("ListPartitionReassignments", v, {"TimeoutMs": 5000, "Topics": None if self.often(0.3) else [{"Name": t, "PartitionIndexes": [self.partition(t)]} for t in ts]}, self.line(), about=ts)
    def alter_dirs(self):
        v = self.version("AlterReplicaLogDirs")
        t = self.topic()
        return Exchange("AlterReplicaLogDirs", v, {"Dirs": [{"Path": self.one("/nowhere", "relative"), "Topics": [{"Name": t, "Partitions": [self.partition(t)]}]}]}, self.line(), about=[t])
    def quorum(self): return Exchange("DescribeQuorum", self.version("DescribeQuorum"), {"Topics": [{"TopicName": "__cluster_metadata", "Partitions": [{"PartitionIndex": 0}]}]}, self.line())
    def features(self): return Exchange("UpdateFeatures", self.version("UpdateFeatures"), {"timeoutMs": 5000, "FeatureUpdates": [{"Feature": self.one("no.such", ""), "MaxVersionLevel": 1, "UpgradeType": 1}], "ValidateOnly": True}, self.line())
    def markers(self):
        t = self.topic()
        return Exchange("WriteTxnMarkers", self.version("WriteTxnMarkers"), {"Markers": [{"ProducerId": 999_999, "ProducerEpoch": 0, "TransactionResult": False, "Topics": [{"Name": t, "PartitionIndexes": [self.partition(t)]}], "CoordinatorEpoch": 0}]}, self.line(), about=[t])
    # -- producers and transactions
    def init_producer(self):
        v = self.version("InitProducerId")
        body = {"TransactionalId": None, "TransactionTimeoutMs": self.one(60000, 60000, 0, -1, 2147483647), "ProducerId": -1, "ProducerEpoch": -1}
        known = self.chance.choice(self.producers) if self.producers else None
        if known and v >= 3 and self.often(0.2): body.update(ProducerId=known["pid"], ProducerEpoch=known["epoch"])
        if self.often(0.05): body["TransactionalId"] = ""
        if v >= 3 and self.often(0.05): body.update(self.one({"ProducerId": 5, "ProducerEpoch": -1}, {"ProducerEpoch": 3}, {"ProducerId": 999_999, "ProducerEpoch": 1}))
        def after(k):
            if k.get("ErrorCode") == 0: self.producers.append({"pid": k["ProducerId"], "epoch": k["ProducerEpoch"], "next": {}})
        return Exchange("InitProducerId", v, body, self.line(), after)
    def begin(self, name):
        v = self.version("InitProducerId"); state = self.transactional.get(name)
        body = {"TransactionalId": name, "TransactionTimeoutMs": self.one(600_000, 600_000, 600_000, 0, -1, 900_001) if self.often(0.2) else 600_000, "ProducerId": -1, "ProducerEpoch": -1}
        if state and v >= 3 and self.often(0.3): body.update(ProducerId=state["pid"], ProducerEpoch=state["epoch"] + (0 if self.often() else self.one(1, -1)))
        def after(k):
            if k.get("ErrorCode") == 0: self.transactional[name] = {"pid": k["ProducerId"], "epoch": k["ProducerEpoch"], "next": {}, "parts": set(), "groups": set()}
        return Exchange("InitProducerId", v, body, self.line(), after, about=[name], settle="transaction")
    def transaction(self):
        alive = [n for n in sorted(self.transactional) if n not in self.dead]
        if len(alive) < 3: return self.begin(self.fresh("x"))
        name = self.chance.choice(alive); s = self.transactional[name]
        pid, epoch = s["pid"], s["epoch"]
        asked, wrong = name, False
        if self.often(0.12):
            wrong = True
            pid, epoch, asked = self.one((pid, epoch + 1, name), (pid, max(epoch - 1, 0), name), (999_999, epoch, name), (pid, epoch, "ghost-txn"), (pid, epoch, ""), (pid, -1, name))
        step = self.chance.choices(["init", "add", "produce", "offsets", "commit", "end"], [1, 4, 6, 2, 3, 3])[0]
        if step == "init": return self.begin(name)
        if step == "add":
            v = self.version("AddPartitionsToTxn", at_most=3)
            ts = list(dict.fromkeys(self.distinct(lambda: self.topic(0.93), 1, 2)))
            topics = [{"Name": t, "Partitions": list(dict.fromkeys([self.partition(t) for _ in range(self.chance.randint(1, 2))]))} for t in ts]
            def after(k):
                if not wrong:
                    for r in k.get("ResultsByTopicV3AndBelow", []):
                        for p in r["ResultsByPartition"]:
                            if p["PartitionErrorCode"] == 0: s["parts"].add((r["Name"], p["PartitionIndex"]))
            return Exchange("AddPartitionsToTxn", v, {"V3AndBelowTransactionalId": asked, "V3AndBelowProducerId": pid, "V3AndBelowProducerEpoch": epoch, "V3AndBelowTopics": topics}, self.line(), after, about=[name, *ts], settle="transaction")
        if step == "produce":
            parts = sorted(p for p in s["parts"] if p[0] in self.topics)
            t, p = self.chance.choice(parts) if parts and self.often(0.85) else (self.live_topic(), 0)
            # From version 12 on Kafka adds the partition by itself, which clients use with transaction.version 2 only.
            v = self.version("Produce", at_most=99 if (t, p) in s["parts"] else 11)
            want = s["next"].get((t, p), 0); rows = self.rows(self.chance.randint(1, 3))
            b = {"rows": rows, "stamp": STAMP, "pid": pid, "epoch": epoch, "sequence": want, "txn": self.often(0.95)}
            if self.often(0.08): b["sequence"] = self.one(want + 1, want + 5, 0)
            def after(k):
                r = (k.get("Responses") or [{}])[0].get("PartitionResponses", [{}])[0]
                if r.get("ErrorCode") == 0 and not wrong: s["next"][t, p] = b["sequence"] + len(rows)
            return Exchange("Produce", v, self.produce_body(v, [(t, p, Records([b]))], txn=asked), self.line(), after, about=[name, t])
        if step == "offsets":
            v, g = self.version("AddOffsetsToTxn"), self.group()
            return Exchange("AddOffsetsToTxn", v, {"TransactionalId": asked, "ProducerId": pid, "ProducerEpoch": epoch, "GroupId": g if self.often(0.9) else ""}, self.line(), lambda k: s["groups"].add(g) if k.get("ErrorCode") == 0 and not wrong else None, about=[name, g], settle="transaction")
        if step == "commit":
            v = self.version("TxnOffsetCommit"); g = self.chance.choice(sorted(s["groups"])) if s["groups"] and self.often(0.9) else self.group()
            ts = list(dict.fromkeys(self.distinct(lambda: self.topic(0.9), 1, 2)))
            body = {"TransactionalId": asked, "GroupId": g, "ProducerId": pid, "ProducerEpoch": epoch, "GenerationId": -1, "MemberId": "", "GroupInstanceId": None, "Topics": [{"Name": t, "Partitions": [{"PartitionIndex": self.partition(t), "CommittedOffset": self.one(0, 3, 9, -1), "CommittedLeaderEpoch": -1, "CommittedMetadata": self.one("", "m", None)}]} for t in ts]}
            if v >= 3 and self.often(0.2): body.update(self.one({"GenerationId": 7}, {"MemberId": "ghost"}, {"MemberId": "ghost", "GenerationId": 1}, {"GroupInstanceId": "i9"}))
            return Exchange("TxnOffsetCommit", v, body, self.line(), about=[name, g, *ts])
        v = self.version("EndTxn")
        def after(k):
            if k.get("ErrorCode") == 0 and not wrong:
                s["parts"].clear(); s["groups"].clear()
                if k.get("ProducerId", -1) != -1 and (k["ProducerId"], k["ProducerEpoch"]) != (s["pid"], s["epoch"]): s.update(pid=k["ProducerId"], epoch=k["ProducerEpoch"], next={})
        return Exchange("EndTxn", v, {"TransactionalId": asked, "ProducerId": pid, "ProducerEpoch": epoch, "Committed": self.often(0.6)}, self.line(), after, about=[name], settle="transaction")
    def describe_transactions(self):
        names = list(dict.fromkeys(self.distinct(lambda: self.chance.choice(sorted(set(self.transactional) - self.dead) or ["ghost"]) if self.often(0.85) else self.one("ghost", ""), 1, 3)))
        return Exchange("DescribeTransactions", self.version("DescribeTransactions"), {"TransactionalIds": names}, self.line(), about=names)
    def list_transactions(self):
        v = self.version("ListTransactions")
        return Exchange("ListTransactions", v, {"StateFilters": self.one([], [], ["Ongoing"], ["Empty"], ["Nonsense"], ["CompleteCommit", "Ongoing"]), "ProducerIdFilters": [] if self.often(0.8) else [999_999], "DurationFilter": self.one(-1, -1, 0, 1 << 40), "TransactionalIdPattern": self.one(None, "", "x.*", "(")}, self.line())
    def describe_producers(self):
        ts = list(dict.fromkeys(self.distinct(self.read_topic, 1, 2)))
        return Exchange("DescribeProducers", self.version("DescribeProducers"), {"Topics": [{"Name": t, "PartitionIndexes": [self.partition(t)]} for t in ts]}, self.line(), about=ts)
    # -- classic groups
    def member_of(self, g):
        return [m for m in self.groups[g].values() if m.id]
    def classic_group(self):
        g = self.group(); members = self.groups[g]
        waiting = [m for m in members.values() if m.busy]
        idle = [m for m in members.values() if m.id and not m.busy]
        if waiting and idle:  # somebody waits: let the others come along
            m = self.chance.choice(idle)
            if m.joined and not m.synced and self.often(0.7): return self.sync(g, m)
            return self.join(g, m) if self.often(0.85) else self.leave(g, m)
        roll = self.chance.random()
        if not idle or (len(members) < 3 and roll < 0.25):
            line = f"{g}/{self.fresh('m')}"; m = Member(line)
            if self.often(0.2): m.instance = self.one("i1", "i2")
            if not waiting or idle: members[line] = m; return self.join(g, m)
            return None
        m = self.chance.choice(idle)
        if m.joined and not m.synced and roll < 0.75: return self.sync(g, m)
        if roll < 0.45: return self.join(g, m)
        if roll < 0.6: return self.sync(g, m)
        if roll < 0.85: return self.heartbeat(g, m)
        return self.leave(g, m)
    def protocols(self):
        if self.often(0.04): return []
        sub = struct.pack(">hi", 0, 1) + struct.pack(">h", 2) + b"t1" + struct.pack(">i", 0)
        return [{"Name": n, "Metadata": sub} for n in self.one(["range"], ["range", "roundrobin"], ["roundrobin", "range"], ["range", "sticky"]) ] if self.often(0.96) else [{"Name": "other", "Metadata": b"\x01"}]
    def join(self, g, m):
        v = self.version("JoinGroup")
        instance = m.instance if v >= 5 else None
        body = {"GroupId": g, "SessionTimeoutMs": 1_200_000, "RebalanceTimeoutMs": 600_000, "MemberId": m.id, "GroupInstanceId": instance, "ProtocolType": "consumer", "Protocols": self.protocols(), "Reason": self.one(None, "because")}
        if self.often(0.06): body.update(self.one({"SessionTimeoutMs": 5}, {"SessionTimeoutMs": 2147483647}, {"SessionTimeoutMs": -1}, {"MemberId": "ghost"}, {"ProtocolType": "connect"}, {"ProtocolType": ""}, {"GroupId": ""}, *([{"GroupInstanceId": ""}, {"GroupInstanceId": "a b"}, {"GroupInstanceId": "."}] if v >= 5 else [])))
        if v < 1: body["SessionTimeoutMs"] = 1_200_000 if body["SessionTimeoutMs"] == 1_200_000 else body["SessionTimeoutMs"]
        true_to_life = body["MemberId"] == m.id and body["GroupId"] == g
        def after(k):
            m.busy = False
            code = k["ErrorCode"]
            if not true_to_life: return
            if code == 79: m.id = k["MemberId"]
            elif code == 0:
                m.id, m.generation, m.leader, m.joined, m.synced = k["MemberId"], k["GenerationId"], k["Leader"] == k["MemberId"], True, bool(k.get("SkipAssignment")) and False
                m.members = [x["MemberId"] for x in k["Members"]]
            elif code in (25, 82): self.groups[g].pop(m.line, None)
        return Exchange("JoinGroup", v, body, m.line, after, may_wait=m, about=[g])
    def sync(self, g, m):
        v = self.version("SyncGroup")
        body = {"GroupId": g, "GenerationId": m.generation, "MemberId": m.id, "GroupInstanceId": m.instance if v >= 3 else None, "ProtocolType": "consumer" if self.often(0.9) else self.one(None, "connect"), "ProtocolName": None,
            "Assignments": [{"MemberId": x, "Assignment": b"a%d" % i} for i, x in enumerate(m.members)] if m.leader else []}
        if self.often(0.08): body.update(self.one({"GenerationId": m.generation + 1}, {"MemberId": "ghost"}, {"GroupId": "ghost"}, {"GroupId": ""}, {"ProtocolName": "other"}, {"Assignments": [{"MemberId": "ghost", "Assignment": b"x"}]}, {"GenerationId": -1}))
        def after(k):
            m.busy = False
            if k["ErrorCode"] == 0 and body["MemberId"] == m.id and body["GroupId"] == g: m.synced = True
            elif k["ErrorCode"] == 27 and body["GroupId"] == g: m.joined = False
        return Exchange("SyncGroup", v, body, m.line, after, may_wait=m, about=[g])
    def heartbeat(self, g, m):
        v = self.version("Heartbeat")
        body = {"GroupId": g, "GenerationId": m.generation, "MemberId": m.id, "GroupInstanceId": m.instance if v >= 3 else None}
        if self.often(0.2): body.update(self.one({"GenerationId": m.generation + 1}, {"MemberId": "ghost"}, {"GroupId": "ghost"}, {"GroupId": ""}, {"GenerationId": -1}, {"MemberId": ""}, *([{"GroupInstanceId": "i9"}] if v >= 3 else [])))
        return Exchange("Heartbeat", v, body, m.line, about=[g])
    def leave(self, g, m):
        v = self.version("LeaveGroup")
        who = {"MemberId": m.id, "GroupInstanceId": m.instance if self.often(0.7) else None, "Reason": self.one(None, "tired")}
        wrong = self.often(0.25)
        if wrong: who.update(self.one({"MemberId": "ghost"}, {"GroupInstanceId": "i9"}, {"MemberId": "", "GroupInstanceId": "i9"}, {"MemberId": ""}))
        group = g if self.often(0.95) else self.one("ghost", "")
        def after(k):
            rs = k.get("Members") or [{"ErrorCode": k["ErrorCode"]}]
            if k["ErrorCode"] == 0 and rs[0].get("ErrorCode") == 0 and group == g: self.groups[g].pop(m.line, None)
        return Exchange("LeaveGroup", v, {"GroupId": group, "Members": [who]} if v >= 3 else {"GroupId": group, "MemberId": who["MemberId"]}, m.line, after, about=[g])
    def offset_commit(self):
        v, g = self.version("OffsetCommit"), self.any_group()
        ts = list(dict.fromkeys(self.distinct(lambda: self.topic(0.88), 1, 3)))
        members = self.member_of(g) if g in self.groups else []
        body = {"GroupId": g, "GenerationIdOrMemberEpoch": -1, "MemberId": "", "GroupInstanceId": None, "RetentionTimeMs": -1,
            "Topics": [self.named(v, 10, t, Partitions=[{"PartitionIndex": self.partition(t), "CommittedOffset": self.one(0, 1, 7, 100, -1, 1 << 50), "CommittedLeaderEpoch": self.one(-1, 0, 3), "CommittedMetadata": self.one("", None, "note", "née", "m" * 4096, "m" * 4097) if self.often(0.3) else "note"}]) for t in ts]}
        if members and self.often(0.7):
            m = self.chance.choice(members); body.update(GenerationIdOrMemberEpoch=m.generation, MemberId=m.id, GroupInstanceId=m.instance if v >= 7 and self.often(0.7) else None)
        if self.modern.get(g) and self.often():
            mid = self.chance.choice(sorted(self.modern[g])); m = self.modern[g][mid]
            body.update(GenerationIdOrMemberEpoch=m["epoch"] if self.often() else m["epoch"] - 1, MemberId=mid, GroupInstanceId=m["instance"] if v >= 7 and self.often(0.7) else None)
        if self.often(0.12): body.update(self.one({"GenerationIdOrMemberEpoch": 99}, {"MemberId": "ghost"}, {"MemberId": "ghost", "GenerationIdOrMemberEpoch": 1}, *([{"GroupInstanceId": "i9"}] if v >= 7 else [])))
        return Exchange("OffsetCommit", v, body, self.line(), about=[g, *ts])
    def offset_fetch(self):
        v = self.version("OffsetFetch")
        def topics(): return None if v >= 2 and self.often(0.3) else [self.named(v, 10, t, PartitionIndexes=[self.partition(t) for _ in range(self.chance.randint(1, 2))]) for t in dict.fromkeys(self.distinct(self.topic, 1, 3))]
        g = self.any_group()
        if v < 8: return Exchange("OffsetFetch", v, {"GroupId": g, "Topics": topics() or ([] if v < 2 else None), "RequireStable": self.often(0.3)}, self.line(), about=[g])
        gs = list(dict.fromkeys([g] + [self.any_group() for _ in range(self.chance.randint(0, 2))]))
        groups = [{"GroupId": x, "MemberId": None, "MemberEpoch": -1, "Topics": topics()} for x in gs]
        if v >= 9 and self.modern.get(g) and self.often():
            mid = self.chance.choice(sorted(self.modern[g])); groups[0].update(MemberId=mid, MemberEpoch=self.modern[g][mid]["epoch"] if self.often() else 99)
        elif v >= 9 and self.often(0.15): groups[0].update(self.one({"MemberId": "ghost"}, {"MemberId": "", "MemberEpoch": 4}, {"MemberId": "ghost", "MemberEpoch": 1}))
        return Exchange("OffsetFetch", v, {"Groups": groups, "RequireStable": self.often(0.3)}, self.line(), about=gs)
    def describe_groups(self):
        v = self.version("DescribeGroups"); gs = list(dict.fromkeys(self.distinct(self.any_group, 0, 3)))
        return Exchange("DescribeGroups", v, {"Groups": gs, "IncludeAuthorizedOperations": self.often(0.2)}, self.line(), about=gs)
    def list_groups(self):
        v = self.version("ListGroups")
        return Exchange("ListGroups", v, {"StatesFilter": self.one([], [], ["Empty"], ["Stable", "Empty"], ["stable"], ["Nonsense"]), "TypesFilter": self.one([], [], ["classic"], ["consumer"], ["Classic"], ["nonsense"])}, self.line())
    def delete_groups(self):
        v = self.version("DeleteGroups"); gs = list(dict.fromkeys(self.distinct(self.any_group, 1, 2)))
        return Exchange("DeleteGroups", v, {"GroupsNames": gs}, self.line(), about=gs)
    def offset_delete(self):
        g = self.any_group(); ts = list(dict.fromkeys(self.distinct(self.topic, 1, 2)))
        return Exchange("OffsetDelete", self.version("OffsetDelete"), {"GroupId": g, "Topics": [{"Name": t, "Partitions": [{"PartitionIndex": self.partition(t)}]} for t in ts]}, self.line(), about=[g, *ts])
    # -- consumer groups of the new protocol
    def modern_group(self):
        # A member that says nothing for 45 s is put out, on either side a little sooner: groups are left before that.
        for g in self.modern: self.born.setdefault(g, time.monotonic())
        self.dead |= {g for g, at in self.born.items() if time.monotonic() - at > 30}
        alive = [g for g in sorted(self.modern) if g not in self.dead]
        if len(alive) < 3: g = self.fresh("c"); self.modern[g] = {}; self.assignors[g] = self.one("uniform", "range")
        else: g = self.chance.choice(alive)
        members = self.modern[g]; v = self.version("ConsumerGroupHeartbeat"); assignor = self.assignors[g]
        base = {"GroupId": g, "InstanceId": None, "RackId": None, "RebalanceTimeoutMs": -1, "SubscribedTopicNames": None, "SubscribedTopicRegex": None, "ServerAssignor": None, "TopicPartitions": None}
        if not members or len(members) < 3 and self.often(0.2):
            # Who gets what depends on the order of ids: the client's own are the same on both sides.
            mid = str(uuid.UUID(int=self.chance.getrandbits(128))) if v >= 1 or assignor == "range" or self.often(0.9) else ""
            body = {**base, "MemberId": mid, "MemberEpoch": 0, "RebalanceTimeoutMs": 600_000, "SubscribedTopicNames": list(dict.fromkeys(self.distinct(lambda: self.topic(0.9), 1, 3))), "ServerAssignor": self.one(None, "uniform") if assignor == "uniform" else assignor, "TopicPartitions": [], "InstanceId": self.one("i1", "i2") if self.often(0.2) else None}
            if self.often(0.1): body.update(self.one({"GroupId": ""}, {"SubscribedTopicNames": []}, {"SubscribedTopicNames": None}, {"ServerAssignor": "nope"}, {"RebalanceTimeoutMs": -1}, {"RebalanceTimeoutMs": 0}, {"TopicPartitions": None}, {"InstanceId": ""}, {"MemberEpoch": -1}, {"MemberEpoch": 5}, {"MemberEpoch": -3}))
        else:
            mid = self.chance.choice(sorted(members)); m = members[mid]
            body = {**base, "MemberId": mid, "MemberEpoch": m["epoch"], "TopicPartitions": m["parts"] if self.often(0.6) else None, "InstanceId": m["instance"]}
            if self.often(0.15): body["SubscribedTopicNames"] = list(dict.fromkeys(self.distinct(lambda: self.topic(0.9), 0, 3)))
            if self.often(0.08): body["MemberEpoch"] = -2 if m["instance"] and self.often(0.5) else -1
            elif self.often(0.1): body.update(self.one({"MemberEpoch": m["epoch"] + 1}, {"MemberEpoch": m["epoch"] - 1}, {"MemberId": "ghost"}, {"MemberId": ""}, {"ServerAssignor": assignor}, {"ServerAssignor": "nope"}, {"GroupId": "ghost"}, {"InstanceId": "i9"}, {"TopicPartitions": [{"TopicId": NIL, "Partitions": [0]}]}))
        def after(k):
            if k["ErrorCode"] == 0 and body["GroupId"] == g:
                if k["MemberEpoch"] < 0: members.pop(body["MemberId"], None); return
                m = members.setdefault(k["MemberId"] or mid, {"epoch": 0, "parts": [], "instance": body["InstanceId"]})
                m["epoch"] = k["MemberEpoch"]
                if k.get("Assignment") is not None: m["parts"] = k["Assignment"]["TopicPartitions"]
            elif k["ErrorCode"] in (25, 110) and body["MemberId"] == mid: members.pop(mid, None)
        return Exchange("ConsumerGroupHeartbeat", v, body, self.line(), after, about=[g])
    def modern_describe(self):
        gs = list(dict.fromkeys(self.distinct(lambda: self.chance.choice(sorted(set(self.modern) - self.dead) or ["ghost"]) if self.often(0.8) else self.any_group(), 1, 3)))
        return Exchange("ConsumerGroupDescribe", self.version("ConsumerGroupDescribe"), {"GroupIds": gs, "IncludeAuthorizedOperations": self.often(0.2)}, self.line(), about=gs)
    # -- who may do what
    def mostly(self, good, bad): return self.chance.choice(good) if self.often(0.94) else self.chance.choice(bad)
    def acl_filter(self):
        return {"ResourceTypeFilter": self.mostly([1, 2, 2, 3, 4, 5], [0, 77]), "ResourceNameFilter": self.one(None, None, "a1", "a", "kafka-cluster", "*", "x"), "PatternTypeFilter": self.mostly([1, 1, 2, 3, 4], [0]), "PrincipalFilter": self.one(None, None, "User:alice", "User:*", "alice"), "HostFilter": self.one(None, None, "*", "10.0.0.1"), "Operation": self.mostly([1, 1, 3, 4, 2], [0, 99]), "PermissionType": self.mostly([1, 1, 2, 3], [0])}
    def describe_acls(self): return Exchange("DescribeAcls", self.version("DescribeAcls"), self.acl_filter(), self.line())
    def create_acls(self):
        v = self.version("CreateAcls")
        def acl(): return {"ResourceType": self.mostly([2, 2, 2, 3, 4, 5], [0, 1]), "ResourceName": self.one("a1", "a1", "a", "*", "kafka-cluster", self.live_topic(), "g", "x") if self.often(0.95) else "", "ResourcePatternType": self.mostly([3, 3, 3, 4], [0, 1]),
            "Principal": self.one("User:alice", "User:bob", "User:*", "Group:x") if self.often(0.93) else self.one("alice", ""), "Host": self.one("*", "*", "10.0.0.1", "127.0.0.1", ""), "Operation": self.mostly([3, 4, 8, 2, 10], [0, 1, 99]), "PermissionType": self.mostly([3, 3, 2], [0, 1])}
        made = [a for a in (acl() for _ in range(self.chance.randint(1, 2))) if a["ResourceType"] != 4 or a["ResourceName"] != "kafka-cluster"]
        if made: self.locked = self.locked or self.clock + 12
        return Exchange("CreateAcls", v, {"Creations": made}, self.line(), settle="a moment")
    def unlock(self):
        return Exchange("DeleteAcls", self.version("DeleteAcls"), {"Filters": [{"ResourceTypeFilter": 1, "ResourceNameFilter": None, "PatternTypeFilter": 1, "PrincipalFilter": None, "HostFilter": None, "Operation": 1, "PermissionType": 1}]}, self.line(), settle="a moment")
    def delete_acls(self): return Exchange("DeleteAcls", self.version("DeleteAcls"), {"Filters": [self.acl_filter() for _ in range(self.chance.randint(1, 2))]}, self.line(), settle="a moment")
    def describe_quotas(self): return Exchange("DescribeClientQuotas", self.version("DescribeClientQuotas"), {"Components": self.one([], [{"EntityType": "user", "MatchType": self.one(0, 1, 2, 9), "Match": self.one("alice", None)}], [{"EntityType": "client-id", "MatchType": 2, "Match": None}], [{"EntityType": "nope", "MatchType": 2, "Match": None}]), "Strict": self.often(0.3)}, self.line())
    def alter_quotas(self): return Exchange("AlterClientQuotas", self.version("AlterClientQuotas"), {"Entries": [{"Entity": [{"EntityType": self.one("user", "user", "client-id", "nope"), "EntityName": self.one("alice", "bob", None)}], "Ops": [{"Key": self.one("producer_byte_rate", "consumer_byte_rate", "request_percentage", "nope"), "Value": self.one(1e9, 2e9, 0.0, -1.0), "Remove": self.often(0.3)}]}], "ValidateOnly": self.often(0.3)}, self.line(), settle="a moment")
    def describe_scram(self): return Exchange("DescribeUserScramCredentials", self.version("DescribeUserScramCredentials"), {"Users": self.one(None, [], [{"Name": "alice"}], [{"Name": "ghost"}], [{"Name": "alice"}, {"Name": "alice"}], [{"Name": ""}])}, self.line())
    def alter_scram(self):
        up = lambda: {"Name": self.one("alice", "bob", ""), "Mechanism": self.one(1, 2, 2, 0, 3), "Iterations": self.one(4096, 8192, 4095, 20000, -1), "Salt": b"salt", "SaltedPassword": b"p" * 32}
        down = lambda: {"Name": self.one("alice", "bob", "ghost", ""), "Mechanism": self.one(1, 2, 0)}
        return Exchange("AlterUserScramCredentials", self.version("AlterUserScramCredentials"), {"Deletions": [down() for _ in range(self.chance.randint(0, 1))], "Upsertions": [up() for _ in range(self.chance.randint(0, 2))]}, self.line(), settle="a moment")
    def handshake(self): return Exchange("SaslHandshake", self.version("SaslHandshake"), {"Mechanism": self.one("PLAIN", "SCRAM-SHA-256", "nope", "")}, 3)
    def authenticate(self): return Exchange("SaslAuthenticate", self.version("SaslAuthenticate"), {"AuthBytes": self.one(b"", b"\0a\0b")}, 3)

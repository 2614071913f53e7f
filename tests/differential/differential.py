#!/usr/bin/env python3
"""differential.py EXCHANGES: the same requests to a real Apache Kafka and to a VitalSQL node, and their answers compared.

SEED=n repeats a run. KAFKA=host:port and OURS=host:port use brokers that are there already (their topics, groups and
ACLs are removed first); else both are started here, ours from VITALSQL. ONLY="Fetch Produce" keeps some of the APIs.
TRACE=file writes every exchange there; HISTORY=n tells n earlier exchanges about the same things (6).
"""
import os, pprint, random, re, shutil, subprocess, sys, tempfile, time, uuid, urllib.request
from collections import Counter, deque
import apache, batches, compare, generate, intended, settings, sides
from codec import APIS, BY_KEY, Bad

READS = {"Fetch", "ListOffsets", "Metadata", "OffsetFetch", "DescribeGroups", "ListGroups", "DescribeConfigs", "DescribeCluster", "DescribeTransactions", "ListTransactions", "DescribeProducers", "DescribeLogDirs",
    "DescribeTopicPartitions", "ListConfigResources", "DescribeAcls", "DescribeClientQuotas", "DescribeUserScramCredentials", "ConsumerGroupDescribe", "OffsetForLeaderEpoch", "FindCoordinator"}
AGAIN = {51, 14, 15}    # concurrent transactions, coordinator loading or not there: a client asks again
NOT_ENOUGH_REPLICAS = 19
INTERNAL = re.compile(r"^(__|vitalsql\.|alerts$)")

class Run:
    def __init__(self, kafka, ours, seed):
        self.kafka, self.ours, self.ids = sides.Side("Kafka", kafka), sides.Side("VitalSQL", ours), compare.Ids()
        self.chance = random.Random(seed)
        self.done, self.counts, self.codes, self.found, self.waiting, self.history = 0, Counter(), Counter(), {}, [], deque(maxlen=4000)
        self.meant = Counter()
        self.trace = open(os.environ["TRACE"], "w") if os.environ.get("TRACE") else None
    def both(self): return (self.kafka, self.ours)
    def prepare(self):
        """What both serve, and a clean slate on both."""
        tables = []
        for side in self.both():
            keys = side.ask("ApiVersions", 0, {})["ApiKeys"]
            tables.append({k["ApiKey"]: (k["MinVersion"], k["MaxVersion"]) for k in keys})
        ranges = {}
        for key, (a, b) in tables[1].items():
            if key not in BY_KEY: print(f"no definition of API {key}"); continue
            if key not in tables[0]: sys.exit(f"we advertise API {key}, Kafka does not")
            api = BY_KEY[key]
            low, high = max(a, tables[0][key][0], api.request.versions[0]), min(b, tables[0][key][1], api.request.versions[1])
            if a < tables[0][key][0]: print(f"we advertise {api.name} from {a}, Kafka from {tables[0][key][0]}")
            if b > tables[0][key][1]: print(f"we advertise {api.name} up to {b}, Kafka up to {tables[0][key][1]}")
            ranges[api.name] = (low, high)
        if os.environ.get("ONLY"): ranges = {n: r for n, r in ranges.items() if n in os.environ["ONLY"].split()}
        for side in self.both():
            # The topics of groups and transactions come with their first use.
            for kind, name in ((0, "g"), (1, "x")):
                for _ in range(200):
                    if side.ask("FindCoordinator", 1, {"Key": name, "KeyType": kind})["ErrorCode"] == 0: break
                    time.sleep(0.1)
            for _ in range(100):
                if side.ask("OffsetCommit", 2, {"GroupId": "warm", "GenerationIdOrMemberEpoch": -1, "MemberId": "", "Topics": []})["Topics"] == [] and side.ask("ListGroups", 0, {})["ErrorCode"] == 0: break
                time.sleep(0.1)
            for _ in range(100):
                if side.ask("InitProducerId", 0, {"TransactionalId": None, "TransactionTimeoutMs": 60000})["ErrorCode"] == 0: break
                time.sleep(0.1)
            names = [t["Name"] for t in side.ask("Metadata", 1, {"Topics": None})["Topics"] if not INTERNAL.match(t["Name"])]
            if names: side.ask("DeleteTopics", 1, {"TopicNames": names, "TimeoutMs": 20000}, 30)
            groups = [g["GroupId"] for g in side.ask("ListGroups", 0, {})["Groups"]]
            if groups: side.ask("DeleteGroups", 0, {"GroupsNames": groups})
            has = tables[self.both().index(side)]
            self.forget(side, has)
            # Groups of the new protocol are assigned at once, not at most once a second, on either side in a moment of its own.
            if 44 in has: side.ask("IncrementalAlterConfigs", 0, {"Resources": [{"ResourceType": 4, "ResourceName": "", "Configs": [{"Name": "group.consumer.assignment.interval.ms", "ConfigOperation": 0, "Value": "0"}]}], "ValidateOnly": False})
        self.tables = tables
        time.sleep(0.5)
        self.generator = generate.Generator(self.chance, ranges)
        # Names that no other run on the same brokers has used, groups and transactional ids among them.
        self.generator.counter = int(os.environ.get("FROM", "0"))
        self.ranges = ranges
        self.align()
        return ranges
    def forget(self, side, has):
        """Takes away users, quotas and access rules."""
        if 51 in has:
            # One change of a user in a request.
            for m in (1, 2): side.ask("AlterUserScramCredentials", 0, {"Deletions": [{"Name": n, "Mechanism": m} for n in ("alice", "bob")], "Upsertions": []})
        if 49 in has:
            for kind in ("user", "client-id"):
                side.ask("AlterClientQuotas", 1, {"Entries": [{"Entity": [{"EntityType": kind, "EntityName": n}], "Ops": [{"Key": k, "Value": 0.0, "Remove": True} for k in ("producer_byte_rate", "consumer_byte_rate", "request_percentage")]} for n in ("alice", "bob", None)], "ValidateOnly": False})
        if 31 in has: side.ask("DeleteAcls", 1, {"Filters": [{"ResourceTypeFilter": 1, "ResourceNameFilter": None, "PatternTypeFilter": 1, "PrincipalFilter": None, "HostFilter": None, "Operation": 1, "PermissionType": 1}]})
    # -- one exchange
    def run(self, total):
        while self.done < total:
            e = self.generator.next()
            if e is None: continue
            if e.line in [w[0].line for w in self.waiting]: continue
            self.exchange(e)
            self.collect()
        until = time.monotonic() + 2
        while self.waiting and time.monotonic() < until: self.collect(); time.sleep(0.01)
    def exchange(self, e):
        api = APIS[e.api]; self.done += 1; self.counts[e.api] += 1
        if e.may_wait: e.may_wait.busy = True
        number = self.done
        got = self.send(e, api)
        if got is None: self.waiting.append((e, number)); self.history.append((number, e, [("waits", None)] * 2)); return
        for i, side in enumerate(self.both()):
            # Who is still at work on the exchange before is asked again, and only he: to ask changes things.
            for _ in range(80):
                if not self.again(e, got[i]): break
                time.sleep(0.03)
                e.correlations[i] = side.send(e.line, api, e.version, compare.plain(e.body) if i == 0 else compare.translate(e.api, e.body, self.ids), e.raw, e.client)
                got[i] = side.receive(e.line, api, e.version, e.correlations[i], 5) or ("silence", None)
        if e.api in READS:
            # Kafka's own parts learn of a change one after the other: a difference that passes is none.
            for _ in range(8):
                if not self.compare(e, got, False): break
                time.sleep(0.06); got = self.send(e, api)
        self.judge(e, number, got)
    def again(self, e, got):
        # Where Kafka's parts do not reach one another in time, it refuses a transaction's record with a code to try again on.
        return got[0] == "answer" and any(c in AGAIN or c == NOT_ENOUGH_REPLICAS and e.api == "Produce" for c in self.all_codes(got[1]))
    def all_codes(self, x):
        if isinstance(x, dict):
            for k, v in x.items():
                if k.endswith("ErrorCode"): yield v
                else: yield from self.all_codes(v)
        elif isinstance(x, list):
            for v in x: yield from self.all_codes(v)
    def send(self, e, api):
        """The two outcomes; None where both make the member wait."""
        correlations = []
        for side in self.both():
            body = None if e.raw is not None else compare.plain(e.body) if side is self.kafka else compare.translate(e.api, e.body, self.ids)
            correlations.append(side.send(e.line, api, e.version, body, e.raw, e.client))
        e.correlations = correlations
        silent = e.api == "Produce" and isinstance(e.body, dict) and e.body.get("Acks") == 0
        return self.outcomes(e, api, 0.08 if e.may_wait or silent else 5)
    def outcomes(self, e, api, wait):
        got = [None, None]
        until = time.monotonic() + wait
        while time.monotonic() < until and None in got:
            for i, side in enumerate(self.both()):
                if got[i] is None: got[i] = side.receive(e.line, api, e.version, e.correlations[i], 0.002)
            if e.may_wait and (got[0] is None) != (got[1] is None): until = max(until, time.monotonic() + 0.5) if wait < 1 else until; wait = 3
        if got == [None, None] and e.may_wait: return None
        if any(g is None for g in got):
            for i, side in enumerate(self.both()):
                if got[i] is None: got[i] = side.receive(e.line, api, e.version, e.correlations[i], 3)
        return [g or ("silence", None) for g in got]
    def collect(self):
        for w in list(self.waiting):
            e, number = w
            got = self.outcomes(e, APIS[e.api], 0.004)
            if got is None: continue
            self.waiting.remove(w); self.judge(e, number, got)
    # -- judging
    def compare(self, e, got, learn):
        """The differences that are not meant."""
        out = []
        (a, x), (b, y) = got
        if a != b: out.append(("", f"{a} {x if a != 'answer' else compare.tidy(e.api, x, self.kafka)}", f"{b} {y if b != 'answer' else compare.tidy(e.api, y, self.ours)}"))
        elif a == "answer":
            x, y = self.own(e, compare.tidy(e.api, x, self.kafka)), self.own(e, compare.tidy(e.api, y, self.ours))
            ids = self.ids
            if not learn: ids = compare.Ids(); ids.ours, ids.theirs = dict(self.ids.ours), dict(self.ids.theirs)
            out = compare.differences(e.api, x, y, ids)
        elif a != "closed": out.append(("", f"{a} {x}", f"{b} {y}"))
        result, fell_over = [], got[0][0] == "silence" or got[0][0] == "answer" and -1 in self.all_codes(got[0][1])
        zstd = any(v == 76 for _, _, v in out)
        shares = [compare.shares(g[1]) for g in got] if out and e.api == "ConsumerGroupDescribe" and a == b == "answer" else [{}, {}]
        cut = bool(out) and e.api == "Fetch" and a == "answer" and any(batches.part(p["Records"] or b"") for t in got[0][1]["Responses"] for p in t["Partitions"])
        beside = {path.removesuffix(".ErrorCode"): (k, v) for path, k, v in out if path.endswith(".ErrorCode")}
        for path, k, v in out:
            codes = tuple(g[1].get("ErrorCode") if g[0] == "answer" and isinstance(g[1], dict) else None for g in got)
            d = intended.Difference(e.api, e.version, path, k, v, e.body, fell_over, zstd, codes)
            d.generation = got[0][1].get("GenerationId", -1) if codes[0] is not None else -1
            d.group = e.body.get("GroupId") or next(iter(re.findall(r"^Groups\[([^],]*)", path)), None) if isinstance(e.body, dict) else None
            d.uniform = self.generator.assignors.get(d.group) == "uniform"
            d.alike = shares[0].get(d.group) == shares[1].get(d.group)
            of = re.match(r"(?:Topics|Responses)\[(.*?)\]\.Partitions\[(-?\d+)\]", path)
            if of and e.api == "ListOffsets": d.deleted = self.deleted(of[1], int(of[2]))
            if of and e.api == "Fetch": d.end = self.end(x, of[1], int(of[2]))
            d.cut = cut
            d.beside = beside.get(path.rpartition(".")[0], (None, None))
            names = intended.meant(d)
            if intended.APART & set(names): e.apart = True
            if not names: result.append(d)
            elif learn: self.meant[names[0]] += 1
        return result
    def deleted(self, topic, partition):
        """Whether records were deleted from a partition."""
        return any(t["Name"] == topic and any(p["PartitionIndex"] == partition and p["LowWatermark"] > 0 for p in t["Partitions"])
            for _, h, g in self.history if h.api == "DeleteRecords" and g[0][0] == "answer" for t in g[0][1]["Topics"])
    def end(self, answer, topic, partition):
        """The last offset that a fetch was given of a partition."""
        return max((last for t in answer["Responses"] if topic in (t.get("Topic"), str(t.get("TopicId"))) for p in t["Partitions"] if p["PartitionIndex"] == partition for last in self.lasts(p)), default=-1)
    def lasts(self, partition):
        """The last offsets of a partition's batches."""
        return [b["BaseOffset"] + b["LastOffsetDelta"] for b in partition["Records"] if isinstance(b, dict) and "BaseOffset" in b] if isinstance(partition.get("Records"), list) else []
    def aborted(self, partition):
        """Without the aborted transactions that begin behind the records that are there: Kafka names those up to the next entry of its index."""
        if not partition.get("AbortedTransactions"): return partition
        return {**partition, "AbortedTransactions": [a for a in partition["AbortedTransactions"] if a["FirstOffset"] <= max(self.lasts(partition), default=-1)]}
    def own(self, e, body):
        """Without the topics and groups either keeps for itself."""
        if e.api == "Metadata" and isinstance(e.body, dict) and e.body.get("Topics", 0) in (None, []) and "Topics" in e.body: body = {**body, "Topics": [t for t in body["Topics"] if not INTERNAL.match(t["Name"] or "")]}
        if e.api == "ListGroups" and isinstance(body, dict): body = {**body, "Groups": [g for g in body["Groups"] if (g["GroupId"] in self.generator.groups or g["GroupId"] in self.generator.modern) and g["GroupId"] not in self.generator.dead]}
        if e.api == "ListTransactions" and "TransactionStates" in body: body = {**body, "TransactionStates": [t for t in body["TransactionStates"] if t["TransactionalId"] in self.generator.transactional and t["TransactionalId"] not in self.generator.dead]}
        if e.api == "Fetch":
            # Kafka begins a topic anew where a partition of another lay between two of its own.
            merged = {}
            for t in body["Responses"]:
                k = (t.get("Topic"), t.get("TopicId"))
                merged[k] = {**t, "Partitions": merged[k]["Partitions"] + t["Partitions"]} if k in merged else t
            body = {**body, "Responses": [{**t, "Partitions": [self.aborted(p) for p in t["Partitions"]]} for t in merged.values()]}
        internal = lambda name: INTERNAL.match(name or "") is not None
        if e.api == "ElectLeaders": body = {**body, "ReplicaElectionResults": [t for t in body["ReplicaElectionResults"] if not internal(t["Topic"])]}
        if e.api == "ListConfigResources": body = {**body, "ConfigResources": [r for r in body["ConfigResources"] if not internal(r["ResourceName"])]}
        if e.api == "DescribeTopicPartitions" and not e.body.get("Topics"): body = {**body, "Topics": [t for t in body["Topics"] if not internal(t["Name"])]}
        if e.api in ("DescribeLogDirs",): body = {**body, "Results": [{**r, "Topics": [t for t in r["Topics"] if not INTERNAL.match(t["Name"])]} for r in body["Results"]]}
        return body
    def judge(self, e, number, got):
        differences = self.compare(e, got, True)
        first = got[0][1] if got[0][0] == "answer" else None
        self.history.append((number, e, got))
        if self.trace: print(number, e.line, e.api, f"v{e.version}", repr(e.body), got, file=self.trace, flush=True)
        if first is not None:
            for code in self.all_codes(first): self.codes[e.api, code] += 1
        fresh = []
        for d in differences:
            kind = d.kind()
            if kind not in self.found: self.found[kind] = [0, number]; fresh.append(d)
            self.found[kind][0] += 1
        if fresh: self.show(e, number, got, fresh)
        if e.may_wait: e.may_wait.busy = False
        if first is not None and e.after and e.raw is None:
            e.after(first)
        if got[0][0] == "closed" or got[1][0] == "closed":
            for side in self.both(): side.drop(e.line)
        if any(g[0] in ("silence", "unreadable") for g in got):
            for side in self.both(): side.drop(e.line)
        if e.settle: self.settle(e, first)
        if differences or e.apart or first is not None and -1 in self.all_codes(first) or got[0][0] == "silence": self.retire(e)
    def settle(self, e, answer):
        """Waits until Kafka's parts agree on what an exchange has changed."""
        if e.settle in ("topics", "auto"):
            if e.settle == "topics" or any(t not in self.generator.topics for t in e.about): self.align()
        elif e.settle == "transaction":
            names = [n for n in e.about if n in self.generator.transactional]
            for _ in range(60 if names and e.api in ("EndTxn", "InitProducerId") else 0):
                states = self.kafka.ask("DescribeTransactions", 0, {"TransactionalIds": names})["TransactionStates"]
                if not any(s["TransactionState"].startswith("Prepare") for s in states): break
                time.sleep(0.02)
            if e.api == "EndTxn": time.sleep(0.01)
        else: time.sleep(0.08)
    def align(self):
        """Learns the topics of both, until they are the same; what stays different is taken away on both."""
        before = dict(self.generator.topics)
        for attempt in range(40):
            seen = []
            for side in self.both():
                answer = side.ask("Metadata", 10, {"Topics": None, "AllowAutoTopicCreation": False})
                seen.append({t["Name"]: (t["TopicId"], len(t["Partitions"]), t["ErrorCode"], all(p["ErrorCode"] == 0 for p in t["Partitions"])) for t in answer["Topics"] if not INTERNAL.match(t["Name"])})
            a, b = ({n: (p, e, ok) for n, (_, p, e, ok) in s.items()} for s in seen)
            if a == b and all(e == 0 and ok for _, e, ok in a.values()): break
            time.sleep(0.04)
        else:
            for n in set(a) | set(b):
                if a.get(n) != b.get(n):
                    self.note(("topics", "state"), f"topic {n!r} differs after the last exchanges: Kafka {a.get(n)}, VitalSQL {b.get(n)}")
                    for side, s in zip(self.both(), (a, b)):
                        if n in s: side.ask("DeleteTopics", 1, {"TopicNames": [n], "TimeoutMs": 10000})
            time.sleep(0.3); return self.align()
        if attempt: time.sleep(0.03)
        now = {n: (i, p) for n, (i, p, _, _) in seen[0].items()}
        if now != before: self.reach_groups(now, before)
        for n, (i, _, _, _) in seen[0].items():
            known = self.ids.ours.get(("topic", i))
            if known not in (None, seen[1][n][0]): self.note(("topic ids",), f"topic {n!r} has changed its id on one side only")
            self.ids.ours["topic", i], self.ids.theirs["topic", seen[1][n][0]] = seen[1][n][0], i
        self.generator.topics = {n: (i, p) for n, (i, p, _, _) in seen[0].items() if n not in self.generator.dead}
        grown = {n for n, t in self.generator.topics.items() if before.get(n) != t}
        if grown: self.start_up(grown)
        gone = set(before) - set(self.generator.topics)
        for s in list(self.generator.transactional.values()):
            s["parts"] = {p for p in s["parts"] if p[0] not in gone}
        for p in list(self.generator.transactional.values()) + self.generator.producers:
            p["next"] = {k: v for k, v in p["next"].items() if k[0] not in gone}
    def reach_groups(self, now, before):
        """Waits until Kafka's group coordinator, which learns of topics last, has seen them too: a member of a group of our own is assigned them all."""
        beat = {"GroupId": "probe", "MemberId": "probe", "MemberEpoch": 0, "InstanceId": None, "RackId": None, "RebalanceTimeoutMs": 600_000, "SubscribedTopicNames": sorted(set(now) | set(before)), "SubscribedTopicRegex": None, "ServerAssignor": "range", "TopicPartitions": []}
        for _ in range(100):
            told = self.kafka.ask("ConsumerGroupHeartbeat", 1, beat)
            # Where rules shut us out there is nothing to see.
            if told["ErrorCode"] != 0: time.sleep(0.1); return
            if {t["TopicId"]: len(t["Partitions"]) for t in told["Assignment"]["TopicPartitions"]} == dict(now.values()): return
            time.sleep(0.02)
    def start_up(self, names):
        """A new partition of Kafka's answers NOT_LEADER for a moment after it is listed, and now and then until its next change."""
        for _ in range(50):
            r = self.kafka.ask("ListOffsets", 5, {"ReplicaId": -1, "IsolationLevel": 0, "Topics": [{"Name": n, "Partitions": [{"PartitionIndex": p, "CurrentLeaderEpoch": -1, "Timestamp": -1} for p in range(self.generator.topics[n][1])]} for n in names]})
            lost = {t["Name"] for t in r["Topics"] for p in t["Partitions"] if p["ErrorCode"] == 6}
            if not lost: return
            time.sleep(0.02)
        for side in self.both(): side.ask("DeleteTopics", 1, {"TopicNames": sorted(lost), "TimeoutMs": 10000})
        time.sleep(0.3); self.align()
    def retire(self, e):
        """Two brokers that disagree about a topic, a group or a producer would go on disagreeing: it is not used again."""
        g = self.generator; names = set(e.about)
        if os.environ.get("KEEP"): return
        for n in names:
            if n in g.topics and e.api not in READS:
                for side in self.both(): side.ask("DeleteTopics", 1, {"TopicNames": [n], "TimeoutMs": 10000})
            if n in g.groups or n in g.modern:
                if e.api not in READS or True:
                    g.dead.add(n)
            if n in g.transactional and e.api not in READS: g.dead.add(n)
        if e.api in ("Produce",): g.producers.clear()
        if e.api.endswith(("Acls", "Quotas", "Credentials")):
            for side, has in zip(self.both(), self.tables): self.forget(side, has)
            time.sleep(0.1)
        if any(n in g.topics for n in names) and e.api not in READS: self.align()
    def note(self, kind, text):
        if kind not in self.found: self.found[kind] = [0, self.done]; print(f"\n-- after exchange {self.done}: {text}", flush=True)
        self.found[kind][0] += 1
    def show(self, e, number, got, differences):
        print(f"\n== exchange {number}: {e.api} v{e.version}")
        for d in differences: print(f"   {d}")
        print("   request  " + shorten(e.body))
        for side, g in zip(self.both(), got): print(f"   {side.name:9}" + (shorten(g[1]) if g[0] == "answer" else f"{g[0]} {g[1] or ''}"))
        if e.about and os.environ.get("HISTORY", "6") != "0":
            about = [h for h in self.history if h[1].about & e.about and h[0] != number and h[1].api not in READS][-int(os.environ.get("HISTORY", "6")):]
            for n, h, g in about: print(f"   before: {n} {h.api} v{h.version} {shorten(h.body, 300)} -> {shorten(g[0][1], 200)}")
        sys.stdout.flush()

def shorten(x, limit=1200):
    text = repr(x)
    text = re.sub(r"UUID\('([0-9a-f]{8})[^']*'\)", r"<\1>", text)
    text = re.sub(r"'ThrottleTimeMs': 0, |, 'ThrottleTimeMs': 0", "", text)
    text = re.sub(r"(\w)\1{60,}", lambda m: f"{m[1]}..{len(m[0])}", text)
    text = re.sub(r"'ErrorMessage': ('[^']{40})[^']*'", r"'ErrorMessage': \1..'", text)
    return text if len(text) <= limit else text[:limit] + f".. ({len(text)})"

class Node:
    """A VitalSQL node of our own."""
    def __init__(self, binary, folder): self.binary, self.folder, self.port, self.http, self.process = binary, folder, apache.free_port(), apache.free_port(), None
    def start(self):
        os.makedirs(self.folder, exist_ok=True)
        self.process = subprocess.Popen([self.binary, "serve", "--data-dir", os.path.join(self.folder, "data"), "--kafka", f"127.0.0.1:{self.port}", "--http", f"127.0.0.1:{self.http}"],
            stdout=open(os.path.join(self.folder, "out"), "w"), stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env={**os.environ, **settings.OURS}, cwd=self.folder)
        for _ in range(300):
            if self.process.poll() is not None: sys.exit("the node ended:\n" + open(os.path.join(self.folder, "out")).read()[-3000:])
            try:
                if urllib.request.urlopen(f"http://127.0.0.1:{self.http}/readyz", timeout=1).status == 200: return
            except OSError: time.sleep(0.1)
        sys.exit("the node did not become ready within 30 s")
    def stop(self):
        if self.process: self.process.terminate(); self.process.wait(timeout=30)

def address(text): host, _, port = text.rpartition(":"); return (host, int(port))

def main():
    total, seed = int(sys.argv[1]), int(os.environ.get("SEED", "0")) or random.randrange(1 << 30)
    folder = tempfile.mkdtemp(prefix="vitalsql-differential-")
    kafka = node = None
    try:
        if not os.environ.get("KAFKA"): kafka = apache.Kafka(os.path.join(folder, "kafka"), settings.KAFKA, settings.FEATURES); kafka.start()
        if not os.environ.get("OURS"): node = Node(os.environ["VITALSQL"], os.path.join(folder, "node")); node.start()
        run = Run(("127.0.0.1", kafka.port) if kafka else address(os.environ["KAFKA"]), ("127.0.0.1", node.port) if node else address(os.environ["OURS"]), seed)
        ranges = run.prepare()
        print(f"seed {seed}, {total} exchanges, {len(ranges)} APIs, {sum(b - a + 1 for a, b in ranges.values())} versions", flush=True)
        begun = time.time()
        try: run.run(total)
        finally:
            print(f"\n{run.done} exchanges in {time.time() - begun:.0f} s; by API: " + ", ".join(f"{n} {c}" for n, c in run.counts.most_common()))
            answered = Counter()
            for (api, code), n in run.codes.items(): answered[code] += n
            print("error codes answered: " + ", ".join(f"{c} ({n})" for c, n in sorted(answered.items())))
            print("meant differences: " + (", ".join(f"{n} {c}" for n, c in run.meant.items()) or "none"))
            for kind, (n, first) in sorted(run.found.items(), key=lambda x: -x[1][0]): print(f"  {n:5} times, first in exchange {first}: {' '.join(map(str, kind))}")
    finally:
        if kafka: kafka.stop()
        if node: node.stop()
        shutil.rmtree(folder, ignore_errors=True)
    print(f"differential: {run.done} exchanges, {len(run.found)} kinds of difference, seed {seed}")
    sys.exit(1 if run.found else 0)

if __name__ == "__main__": main()

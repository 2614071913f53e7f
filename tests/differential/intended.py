"""The differences that are meant, each with its reason; `python3 intended.py` writes intended.md.

A difference is (api, version, path without the [..], Kafka's value, ours); a line below either takes it away or not.
"""
import re
from compare import GONE

NOBODY = object()

def _is(api, path):
    """A matcher of one API ('*' for all) and the end of a path."""
    pattern = re.compile(path)
    return lambda d: (api == "*" or d.api in api.split("|")) and pattern.search(d.path) is not None

def _uniform(d):
    """Who has what, and how far each has come towards it, in a group whose target is as good on either side."""
    if not d.uniform: return False
    moving = lambda x: x in ("Stable", "Reconciling")
    if d.api == "ConsumerGroupHeartbeat": return d.codes == (0, 0) and (d.path == "MemberEpoch" or d.path.startswith("Assignment"))
    if d.api == "ConsumerGroupDescribe": return d.alike and ("ssignment.TopicPartitions" in d.path or d.path.endswith(".MemberEpoch") or d.path.endswith(".GroupState") and moving(d.kafka) and moving(d.ours))
    return d.api == "ListGroups" and (GONE in (d.kafka, d.ours) and bool(d.body.get("StatesFilter")) or d.path.endswith(".GroupState") and moving(d.kafka) and moving(d.ours))

# (name, what Kafka does, what we do, why, matcher)
INTENDED = [
    ("words", "its own words in error messages and documentation", "ours", "texts are for people", _is("*", r"(ErrorMessage|Documentation)$")),
    ("part of a batch", "fills a fetch up to `max_bytes` with part of a batch", "only whole batches", "every client throws the part away; what it would have taken goes to the partitions behind", lambda d: d.cut and d.kafka == GONE and d.full.endswith(".Records[0]")),
    ("falls over", "answers UNKNOWN_SERVER_ERROR, or nothing at all, where its own code throws (an isolation level of 2, null records, a member id that is not the one of its instance id, a segment.index.bytes of 4 to 7 that it took)", "a definite answer", "an exception inside Kafka is not a contract", lambda d: d.fell_over),
    ("order", "arrays in the order of its hash tables", "in order of name", "nobody can rely on it; elements are compared by their keys", lambda d: False),
    ("own topics", "keeps `__consumer_offsets`, `__transaction_state` and others", "keeps `alerts`, and further topics whose names begin with `__` or `vitalsql.`", "where the node writes down what Kafka's controller does; they are left out of the comparison, and clients may not change or write them", lambda d: re.search(r"\[(2,)?(__|alerts[],])", d.full) is not None),
    ("record offsets", "takes uncompressed batches whose records number themselves as they like", "INVALID_RECORD where they are not 0, 1, 2 ..", "consumers would meet offsets out of order", lambda d: d.api == "Produce" and "'deltas'" in repr(d.body)),
    ("min.insync.replicas", "says source 3, since it writes that setting down as a cluster-wide default when it is formatted", "source 5", "there is one replica", lambda d: "[min.insync.replicas" in d.full),
    ("not made", "draws a topic id for a topic that is only validated", "none", "nothing is made", lambda d: d.api == "CreateTopics" and d.path == "Topics.TopicId" and d.body.get("validateOnly", False)),
    ("sessions", "opens a fetch session where one is asked for (session epoch 0)", "answers with session id 0, which KIP-227 allows: every fetch names its partitions", "one node with its readers near by has little to win from remembering them", _is("Fetch", r"^SessionId$")),
    ("broker settings", "lists the settings of its own make", "the settings there are", "what a setting of Kafka's would do here, nothing does", lambda d: d.api == "DescribeConfigs" and re.match(r"Results\[(4|8),[^]]*\]\.Configs", d.full) is not None),
    ("newest record", "counts the markers of transactions as records when it looks for the largest timestamp", "does not", "whoever asked would find nothing at that offset", lambda d: d.api == "ListOffsets" and any(p["Timestamp"] == -3 for t in d.body.get("Topics", []) for p in t["Partitions"]) and d.path.endswith((".Offset", ".Timestamp", ".LeaderEpoch"))),
    ("aborted is gone", "takes a batch numbered like one of an aborted transaction for that one repeated, and acknowledges it", "OUT_OF_ORDER_SEQUENCE_NUMBER", "clients that had no answer when they aborted do number so (librdkafka 2.16), and the record would be lost", lambda d: d.api == "Produce" and "'txn': True" in repr(d.body) and d.beside == (0, 45)),
    ("implicit partitions", "adds a partition to a transaction when version 12 of Produce or later writes to it", "TRANSACTION_ABORTABLE until AddPartitionsToTxn has named it", "clients do so only where `transaction.version` is 2, which is not offered", lambda d: False),
    ("our settings", "does not know", "topic settings that begin with `vitalsql.`", "they are ours", lambda d: "[vitalsql." in d.full),
    ("client metrics", "lists settings of client metrics", "none", "telemetry is not served", lambda d: d.api == "DescribeConfigs" and d.full.startswith("Results[16,")),
    ("a tie", "chooses by the order of a hash table where two protocols or two assignors of a group have as many votes, and among the members where the leader has left", "the first of those", "nobody can rely on it", lambda d: d.api in ("JoinGroup", "SyncGroup") and d.path == "ProtocolName" or d.api == "JoinGroup" and d.codes == (0, 0) and d.generation > 1 and d.path in ("Leader", "Members")),
    ("zstd for the old", "gives a fetch below version 10 batches it cannot know, unless the topic's compression.type is zstd", "UNSUPPORTED_COMPRESSION_TYPE for every such batch", "an error that says so helps more than bytes that cannot be read", lambda d: d.api == "Fetch" and d.version < 10 and (d.ours == 76 or d.zstd)),
    ("end of a segment", "ends a fetch at the end of a segment", "goes on into the next", "fewer round trips; every client goes on from the last batch it got", lambda d: d.api == "Fetch" and d.path.endswith("Records") and (d.kafka == GONE and not d.full.endswith("[0]") or d.ours == GONE and d.body.get("MaxBytes", 1 << 30) <= 200) or d.api == "Fetch" and d.path.endswith("AbortedTransactions") and d.kafka == GONE and d.ours["FirstOffset"] > d.end),
    ("which partitions", "gives the members of a group with the `uniform` assignor their partitions in the order of hash tables of member ids and topic ids", "in the order of the ids", "nobody can rely on it; compared is how many partitions the members get, the sizes in order, and that all are given; with the `range` assignor every single one is", _uniform),
    ("stricter offsets", "takes TxnOffsetCommit from a transactional id that does not own the producer id, or whose transaction does not hold the group", "INVALID_PRODUCER_ID_MAPPING and the like, INVALID_REQUEST for the empty id", "such offsets would be pending for ever; Kafka checks with `transaction.version` 2 only", lambda d: d.api == "TxnOffsetCommit" and d.kafka == 0 and d.ours in (42, 47, 48, 49, 90)),
    ("on the way", "lets the offsets of a topic be deleted while a consumer that reads it is still joining", "GROUP_SUBSCRIBED_TO_TOPIC", "in a moment it will ask for them", lambda d: d.api == "OffsetDelete" and d.kafka == 0 and d.ours == 86),
    ("none or null", "says null for the aborted transactions of a partition for which no room was left", "an empty list", "both mean none", lambda d: d.api == "Fetch" and d.path.endswith("AbortedTransactions") and d.kafka is None and d.ours == []),
    ("followers", "refuses a fetch that claims to come from a replica which is none", "answers it like a consumer's, where the cluster right that Kafka asks of replicas is there", "there are no replicas", lambda d: d.api == "Fetch" and (d.body.get("ReplicaState") or {}).get("ReplicaId", -1) >= 0),
    ("own epochs", "counts how often its internal topics have changed their leader", "0", "the leader of this node's topics is the node", lambda d: d.api == "Metadata" and d.path.endswith("LeaderEpoch") and d.ours == 0 and "'__" in repr(d.body)),
    ("once more", "aborts the open transaction of a producer that says who it is when it initialises again, answers CONCURRENT_TRANSACTIONS, and fences it when it does as it is told and asks again", "aborts the transaction and answers", "the retry that is asked for should succeed", lambda d: d.api == "InitProducerId" and d.body.get("ProducerId", -1) >= 0 and d.path in ("ErrorCode", "ProducerId", "ProducerEpoch") and (d.kafka in (90, 47, -1))),
    ("an id that is nothing", "writes to a partition that is in the producer's transaction already, whatever transactional id the request gives", "INVALID_REQUEST for the empty id, INVALID_PRODUCER_ID_MAPPING for another's", "the transaction is not that id's", lambda d: d.api == "Produce" and d.body.get("TransactionalId") in ("", "ghost-txn") and d.beside[1] in (42, 49)),
    ("a repetition", "answers a batch that it has already with that batch's largest timestamp as the time of its append", "no such time", "it is the client's own time in most topics", lambda d: d.api == "Produce" and d.path.endswith("LogAppendTimeMs") and d.ours == -1 and "'pid'" in repr(d.body)),
    ("aborted further on", "names aborted transactions up to the next entry of its index", "those that touch the records in the answer", "the others are named with their records", lambda d: False),
    ("age of records", "deletes segments by the timestamps of their records", "by the time they were received", "a device with a wrong clock neither loses its records at once nor keeps them for ever", lambda d: False),
    ("a time that was deleted", "finds no record by a time that a record had which is deleted, as long as its segment is there", "the first of those that are left", "a record that is there is to be found, whatever has not been tidied up yet", lambda d: d.api == "ListOffsets" and d.deleted and d.kafka == -1 and d.path.endswith((".Offset", ".Timestamp", ".LeaderEpoch"))),
    ("apis", "advertises further APIs and versions", "what the supported-APIs page lists", "share groups, telemetry, delegation tokens and what brokers and controllers say to one another have no meaning on one node, or come later",
        lambda d: d.api == "ApiVersions" and (d.path.startswith("ApiKeys") or "Feature" in d.path or d.path == "ZkMigrationReady")),
]

class Difference:
    def __init__(self, api, version, path, kafka, ours, body, fell_over=False, zstd=False, codes=None): self.codes, self.uniform, self.alike, self.deleted, self.end, self.beside, self.cut = codes, False, False, False, 0, (None, None), False; self.fell_over, self.zstd = fell_over, zstd; self.api, self.version, self.full, self.kafka, self.ours, self.body = api, version, path, kafka, ours, body; self.path = re.sub(r"\[[^]]*\]", "", path)
    def kind(self):
        def short(x): return x if isinstance(x, (int, bool, type(None))) or isinstance(x, str) and len(x) < 40 else f"{type(x).__name__}"
        if self.path.endswith(("Offset", "Timestamp", "Watermark", "Body", "Count", "Delta", "Id", "Name")) : return (self.api, self.path)
        return (self.api, self.path, short(self.kafka), short(self.ours))
    def __str__(self): return f"{self.full}: Kafka {self.kafka!r:.300}, VitalSQL {self.ours!r:.300}"

# After these the two are no longer in the same state: what the exchange was about is not used again.
APART = {"record offsets", "stricter offsets", "falls over", "a tie", "once more", "an id that is nothing", "which partitions"}

def meant(d):
    """The names of the lines that take a difference away."""
    return [name for name, _, _, _, m in INTENDED if m(d)]

def page():
    lines = ["# Where VitalSQL answers differently from Apache Kafka 4.3, on purpose", "",
        "The differential test (`run.sh`) sends the same requests to both and compares the decoded answers. Ids are compared by a bijection, times and addresses are left out. What else may differ is listed here; everything else is a failure.", "",
        "| | Apache Kafka | VitalSQL | why |", "|---|---|---|---|"]
    return "\n".join(lines + [f"| {n} | {k} | {v} | {w} |" for n, k, v, w, _ in INTENDED]) + "\n"

if __name__ == "__main__":
    import os, sys
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "intended.md")
    if "--check" in sys.argv: sys.exit(None if open(path).read() == page() else "intended.md is not what `python3 intended.py` writes")
    with open(path, "w") as f: f.write(page())

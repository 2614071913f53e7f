"""What every Python client has to go through: the same records, the same questions.

A record is a tuple (key, value, headers); headers are a list of (name, bytes or None), names may come twice.
"""
import os, sys, time, traceback

COUNT = 10_000
PARTITIONS = 4
PATIENCE = 60.0  # seconds that any one step may take


def record(i, null_headers):
    key = None if i % 100 == 99 else f"patient-{i % 97}".encode()
    value = None if key and i % 50 == 7 else (f'{{"n":{i},"text":"' + "hr spo2 " * (i % 12) + '"}').encode()
    headers = [("n", str(i).encode()), ("unit", b"mmHg"), ("unit", "/min äöü".encode())] if i % 3 else []
    if i % 10 == 3 and null_headers:
        headers.append(("nothing", None))
    if i % 10 == 4:
        headers.append(("empty", b""))
    return key, value, headers


def records(null_headers=True):
    """All of them; without headers of no value for the client that cannot write one."""
    return [record(i, null_headers) for i in range(COUNT)]


def differences(found, wanted):
    """What is wrong with `found`, a dictionary from partition to records in order; None where it is all there, in order, once."""
    total = sum(len(those) for those in found.values())
    if total != COUNT:
        return f"{total} records instead of {COUNT}"
    place = {}
    for partition, those in found.items():
        for key, _, _ in those:
            if key is not None and place.setdefault(key, partition) != partition:
                return f"key {key} is in partitions {place[key]} and {partition}"
    # The records of a key lie in one partition, in the order they were sent; so they can be compared key by key.
    sent, got = {}, {}
    for r in wanted:
        sent.setdefault(r[0], []).append(r)
    for partition in sorted(found):
        for r in found[partition]:
            got.setdefault(r[0], []).append(r)
    for key, those in sent.items():
        there = got.get(key, [])
        if key is None:
            those, there = sorted(those, key=repr), sorted(there, key=repr)
        for a, b in zip(those, there):
            if a != b:
                return f"sent {a}, read {b}"
        if len(those) != len(there):
            return f"key {key}: {len(those)} sent, {len(there)} read"
    return None


class Story:
    def __init__(self, client, version):
        self.client, self.passed, self.failed = f"{client} {version}", 0, 0
        self.run = f"{os.getpid()}-{int(time.time())}"
        print(f"# {self.client}", flush=True)

    def topic(self, of):
        return f"clients.{self.client.split()[0]}.{of}.{self.run}"

    def check(self, name, ok, detail=""):
        self.passed, self.failed = self.passed + bool(ok), self.failed + (not ok)
        print(f"{'ok  ' if ok else 'FAIL'} {name} {detail}".rstrip(), flush=True)
        return ok

    def tried(self, name, step):
        """Runs a step that answers None (or a note after `~`) where all is well, and what is wrong otherwise."""
        begun = time.time()
        try:
            said = step()
        except Exception as error:  # whatever a client throws is a failed check, and the next one goes on
            traceback.print_exc()
            said = f"{type(error).__name__}: {error}"
        note = said[1:] if said and said.startswith("~") else None
        self.check(name, said is None or note is not None, f"{note or said or ''} ({time.time() - begun:.1f} s)".strip())

    def end(self):
        print(f"{self.client.split()[0]}: {self.passed} passed, {self.failed} failed", flush=True)
        sys.exit(1 if self.failed or not self.passed else 0)


def until(ready, seconds=PATIENCE):
    """Calls `ready` until it is true or time is up, and says which."""
    end = time.time() + seconds
    while time.time() < end:
        if ready():
            return True
    return False


def bootstrap():
    return sys.argv[1] if len(sys.argv) > 1 else sys.exit(f"usage: {sys.argv[0]} HOST:PORT")

"""The readings of a ward, and when each is sent: everything follows from the seed."""
import json, random

MIN, HOUR, DAY = 60_000, 3_600_000, 86_400_000
PARTITIONS, DEVICES, EVERY = 4, 100, 20_000
DELAY = 30_000                      # how far the watermark stays behind
NORMAL, AHEAD, FAR, BAD = range(4)  # what a record is: a reading; one of a clock that is minutes or hours fast, or days; no reading
MINUTES_FAST, HOURS_FAST, DAYS_FAST = 45 * MIN, 6 * HOUR, 3 * DAY

def murmur2(data):
    """Kafka's: where Java's client puts a key."""
    m, mask = 0x5bd1e995, 0xffffffff
    h = 0x9747b28c ^ len(data)
    for i in range(0, len(data) - 3, 4):
        k = int.from_bytes(data[i:i + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    rest = data[len(data) & ~3:]
    if rest: h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15

def place(key): return (murmur2(key.encode()) & 0x7fffffff) % PARTITIONS

def closer(partition):
    """A device of a partition's own, whose last reading closes what is open."""
    return next(name for name in (f"closer-{n}" for n in range(1000)) if place(name) == partition)

def reading(device, seq, ts, hr, spo2):
    return json.dumps({"device": device, "seq": seq, "ts": ts, "hr": hr, "spo2": spo2}, separators=(",", ":")).encode()

def silences(hours):
    """(partition, from, to, whether some of its devices keep their readings and send them all at the end): nobody there sends anything."""
    span, length = hours * HOUR, max(25 * MIN, min(HOUR, hours * HOUR // 10))
    return [(p, int(span * at), int(span * at) + length, keeps) for p, at, keeps in ((2, 0.30, False), (3, 0.60, True), (2, 0.80, False))]

def day(seed, start, hours):
    """All that is sent: (when, topic, key, value, (kind, device, seq or None, ts, hr, spo2)), by when; times are event time in ms."""
    chance, out = random.Random(seed), []
    quiet = silences(hours)
    for n in range(DEVICES):
        device = f"d{n:03}"; fast = {0: MINUTES_FAST, 1: MINUTES_FAST, 2: MINUTES_FAST, 3: HOURS_FAST, 4: HOURS_FAST, 5: DAYS_FAST, 6: DAYS_FAST}.get(n, 0)
        kind = NORMAL if not fast else FAR if fast == DAYS_FAST else AHEAD
        partition, seq, t, low_until = place(device), 0, chance.randrange(EVERY), -1
        while t < hours * HOUR:
            silent = next((q for q in quiet if q[0] == partition and q[1] - MIN <= t < q[2]), None)
            kept = silent and silent[3] and n % 4 == 0 and not fast
            if silent and not kept: t += EVERY; continue
            if chance.random() < 0.003: t += chance.randrange(2 * MIN, 20 * MIN); continue   # out for an examination
            if chance.random() < 0.002: low_until = t + chance.randrange(30_000, 10 * MIN)
            seq += 1
            spo2 = 97.0 if fast or t >= low_until else float(chance.randrange(80, 90))
            ts, hr = start + t + fast, float(chance.randrange(50, 140))
            luck = chance.random()
            late = silent[2] - t if kept else chance.randrange(2 * MIN, 20 * MIN) if luck < 0.005 and not fast else chance.randrange(20_000) if luck < 0.04 else chance.randrange(5_000)
            row, value = (kind, device, seq, ts, hr, spo2), reading(device, seq, ts, hr, spo2)
            out.append((start + t + late, "vitals", device, value, row))
            if chance.random() < 0.01: out.append((start + t + late + chance.randrange(3 * MIN), "vitals", device, value, row))
            if chance.random() < 0.0005: out.append((start + t + late, "vitals", device, b'{"device":"%s","seq":"many","ts":' % device.encode(), (BAD, device, None, 0, 0.0, 0.0)))
            t += EVERY + chance.randrange(2_000)
        t = chance.randrange(HOUR)
        while t < hours * HOUR:
            k = float(chance.randrange(25, 65)) / 10
            ts = start + t
            out.append((ts + chance.randrange(10_000), "labs", device, json.dumps({"device": device, "ts": ts, "k": k}, separators=(",", ":")).encode(), (NORMAL, device, None, ts, k, 0.0)))
            t += chance.randrange(40 * MIN, 80 * MIN) if hours > 4 else chance.randrange(5 * MIN, 15 * MIN)
    out.sort(key=lambda one: one[0])
    return out

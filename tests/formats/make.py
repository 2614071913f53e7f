#!/usr/bin/env python3
"""Makes avro.json and protobuf.json here: values as Confluent's own serializers write them, which the decoders must read
and, where a schema is ours, the encoders must write byte for byte. Run it again after a change of a case:

    pip install 'confluent-kafka[avro,protobuf,schemaregistry]' grpcio-tools && python3 make.py
"""
import datetime as dt
import decimal
import json
import os
import random
import sys
import tempfile

from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

HERE = os.path.dirname(os.path.abspath(__file__))
UTC = dt.timezone.utc


def iso(at):
    text = at.strftime("%Y-%m-%dT%H:%M:%S")
    micros = at.microsecond
    if micros % 1000:
        text += f".{micros:06}"
    elif micros:
        text += f".{micros // 1000:03}"
    return text + "Z"


def clock(t):
    text = t.strftime("%H:%M:%S")
    return text + (f".{t.microsecond // 1000:03}" if t.microsecond else "")


WIDE = {
    "type": "record", "name": "Vitals", "namespace": "ward.one", "fields": [
        {"name": "patientId", "type": "string"},
        {"name": "extra", "type": {"type": "map", "values": ["null", "long"]}},
        {"name": "heart_rate", "type": ["null", "double"], "default": None},
        {"name": "spo2", "type": ["float", "null"]},
        {"name": "n", "type": "int"},
        {"name": "big", "type": ["null", "string", "long"]},
        {"name": "flag", "type": "boolean"},
        {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "ts2", "type": ["null", {"type": "long", "logicalType": "timestamp-micros"}]},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "clock", "type": {"type": "int", "logicalType": "time-millis"}},
        {"name": "dose", "type": {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2}},
        {"name": "dose2", "type": {"type": "fixed", "name": "Dose", "size": 8, "logicalType": "decimal", "precision": 12, "scale": 3}},
        {"name": "next", "type": ["null", "Vitals"], "default": None},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["BED", "WARD"]}},
        {"name": "raw", "type": "bytes"},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {"name": "device", "type": ["null", {"type": "record", "name": "Device", "fields": [
            {"name": "fw", "type": ["null", "int"]}, {"name": "skipped", "type": {"type": "array", "items": "Dose"}}, {"name": "id", "type": "string"}]}]},
    ],
}


def wide(c):
    at = dt.datetime(1970, 1, 1, tzinfo=UTC) + dt.timedelta(milliseconds=c.randrange(-10**12, 4 * 10**12))
    return {
        "patientId": c.choice(["", "p1", "pé 😀"]),
        "extra": {str(i): c.choice([None, c.randrange(-2**63, 2**63)]) for i in range(c.randrange(3))},
        "heart_rate": c.choice([None, 72.5, -0.5, 1e300]),
        "spo2": c.choice([None, 0.5, 96.25]),
        "n": c.choice([-2**31, -1, 0, 63, 64, 2**31 - 1]),
        "big": c.choice([None, 2**62, -2**63]),
        "flag": c.random() < 0.5,
        "ts": at,
        "ts2": c.choice([None, at + dt.timedelta(microseconds=c.randrange(1000))]),
        "day": dt.date(1, 1, 1) + dt.timedelta(days=c.randrange(3_000_000)),
        "clock": dt.time(c.randrange(24), c.randrange(60), c.randrange(60), c.choice([0, 1000, 999000])),
        "dose": decimal.Decimal(c.randrange(-10**10 + 1, 10**10)).scaleb(-2),
        "dose2": decimal.Decimal(c.randrange(-10**12 + 1, 10**12)).scaleb(-3),
        "next": None,
        "kind": c.choice(["BED", "WARD"]),
        "raw": bytes(c.randrange(256) for _ in range(c.randrange(4))),
        "tags": [c.choice(["a", "", "ß"]) for _ in range(c.randrange(3))],
        "device": c.choice([None, {"fw": c.choice([None, 7]), "skipped": [decimal.Decimal("1.5")] * c.randrange(3), "id": "d"}]),
    }


def shown(row):
    """As the row is printed: the columns of the test, in their order."""
    import base64
    device = row["device"]
    return {
        "patientid": row["patientId"], "ts": iso(row["ts"]), "heart_rate": row["heart_rate"], "spo2": row["spo2"], "n": row["n"],
        "big": row["big"], "flag": row["flag"], "ts2": row["ts2"] and iso(row["ts2"]), "day": row["day"].strftime("%Y-%m-%d").zfill(10),
        "clock": clock(row["clock"]), "dose": float(row["dose"]), "dose2": float(row["dose2"]), "kind": row["kind"],
        "raw": base64.b64encode(row["raw"]).decode(), "tags": row["tags"],
        "device": device and {"id": device["id"], "fw": device["fw"]}, "absent": None,
    }


# The schema that the test's columns have when a sink writes them.
OURS = json.loads("""{"type":"record","name":"ours","fields":[
 {"name":"id","type":"string"},
 {"name":"hr","type":["null","double"],"default":null},
 {"name":"spo2","type":["null","float"],"default":null},
 {"name":"n","type":["null","int"],"default":null},
 {"name":"big","type":"long"},
 {"name":"flag","type":["null","boolean"],"default":null},
 {"name":"ts","type":{"type":"long","logicalType":"timestamp-millis"}},
 {"name":"day","type":["null",{"type":"int","logicalType":"date"}],"default":null},
 {"name":"dose","type":["null",{"type":"bytes","logicalType":"decimal","precision":10,"scale":2}],"default":null},
 {"name":"raw","type":["null","bytes"],"default":null},
 {"name":"tags","type":["null",{"type":"array","items":["null","string"]}],"default":null},
 {"name":"device","type":["null",{"type":"record","name":"ours_device","fields":[
   {"name":"id","type":["null","string"],"default":null},{"name":"fw","type":["null","long"],"default":null}]}],"default":null}]}""")


def ours(c):
    def maybe(value):
        return None if c.random() < 0.25 else value
    row = wide(c)
    return {
        "id": row["patientId"], "hr": row["heart_rate"], "spo2": row["spo2"], "n": maybe(row["n"]), "big": c.randrange(-2**63, 2**63),
        "flag": maybe(row["flag"]), "ts": row["ts"], "day": maybe(row["day"]), "dose": maybe(row["dose"]), "raw": maybe(row["raw"]),
        "tags": maybe([maybe(t) for t in row["tags"]]), "device": maybe({"id": maybe("x"), "fw": maybe(c.randrange(-2**63, 2**63))}),
    }


def shown_ours(row):
    import base64
    row = dict(row)
    row["ts"] = iso(row["ts"])
    row["day"] = row["day"] and row["day"].strftime("%Y-%m-%d").zfill(10)
    row["dose"] = None if row["dose"] is None else float(row["dose"])
    row["raw"] = None if row["raw"] is None else base64.b64encode(row["raw"]).decode()
    return row


def case(name, schema, rows, show):
    client = SchemaRegistryClient.new_client({"url": "mock://" + name})
    text = json.dumps(schema)
    serializer = AvroSerializer(client, text)
    context = SerializationContext(name, MessageField.VALUE)
    return {"schema": text, "values": [serializer(row, context).hex() for row in rows], "rows": [show(row) for row in rows]}


def generated():
    """The modules that protoc makes of the .proto files."""
    from grpc_tools import protoc
    import grpc_tools
    folder = tempfile.mkdtemp()
    google = os.path.join(os.path.dirname(grpc_tools.__file__), "_proto")
    names = ["device.proto", "vitals.proto", "ours.proto"]
    if protoc.main(["protoc", f"-I{HERE}", f"-I{google}", f"--python_out={folder}", *names]):
        sys.exit("protoc refuses the .proto files")
    sys.path.insert(0, folder)
    import ours_pb2
    import vitals_pb2
    return vitals_pb2.Batch.Vitals, ours_pb2.ours


def stamped(field, at):
    field.FromDatetime(at.replace(tzinfo=None))


def vitals_message(Vitals, c):
    import base64
    row, m = wide(c), Vitals()
    m.patientId = row["patientId"]
    if row["heart_rate"] is not None:
        m.heart_rate = row["heart_rate"]
    m.spo2 = row["spo2"] or 0
    m.n = row["n"]
    m.big = row["big"] or 0
    m.count = c.choice([0, 2**63 - 1])
    m.crc = c.choice([0, 2**32 - 1])
    m.offset = c.randrange(-2**63, 2**63)
    m.flag = row["flag"]
    if c.random() < 0.8:
        stamped(m.ts, row["ts"])
    m.epoch_ms = c.randrange(0, 4 * 10**12)
    m.day = row["day"].strftime("%Y-%m-%d").zfill(10)
    if c.random() < 0.7:
        m.dose.value = c.choice([0, 1.5])
    m.kind = c.randrange(3)
    m.raw = row["raw"]
    m.tags.extend(row["tags"])
    m.steps.extend(c.randrange(-2**63, 2**63) for _ in range(c.randrange(3)))
    m.kinds.extend(c.randrange(3) for _ in range(c.randrange(3)))
    m.extra.update({"a": 1} if c.random() < 0.5 else {})
    if row["device"]:
        m.device.id = row["device"]["id"]
        if row["device"]["fw"] is not None:
            m.device.fw = row["device"]["fw"]
        m.device.parts.add().id = "inner"
    if c.random() < 0.5:
        m.text = c.choice(["", "note"])
    else:
        m.code = c.choice([0, -5])
    names = ["UNKNOWN", "BED", "WARD"]
    which = m.WhichOneof("note")
    epoch = dt.datetime(1970, 1, 1, tzinfo=UTC) + dt.timedelta(milliseconds=m.epoch_ms)
    shown = {
        "patientid": m.patientId, "heart_rate": row["heart_rate"], "spo2": m.spo2, "n": m.n, "big": m.big, "count": m.count, "crc": m.crc,
        "offset": m.offset, "flag": m.flag, "ts": iso(row["ts"]) if m.HasField("ts") else None, "epoch_ms": iso(epoch), "day": m.day,
        "dose": m.dose.value if m.HasField("dose") else None, "kind": names[m.kind], "raw": base64.b64encode(m.raw).decode(),
        "tags": list(m.tags), "steps": list(m.steps), "kinds": [names[k] for k in m.kinds],
        "device": {"id": m.device.id, "fw": m.device.fw if m.device.HasField("fw") else None, "parts": [{"id": "inner"}]} if row["device"] else None,
        "text": m.text if which == "text" else None, "code": m.code if which == "code" else None, "absent": None,
    }
    return m, shown


def ours_message(Ours, c):
    row = ours(c)
    row.update(tags=row["tags"] and [t for t in row["tags"] if t is not None] or [], steps=[c.randrange(-9, 9) for _ in range(c.randrange(3))], on=c.random() < 0.5)
    m = Ours(id=row["id"], big=row["big"], tags=row["tags"], steps=row["steps"], on=row["on"])
    for plain in ["hr", "spo2", "n", "flag", "raw"]:
        if row[plain] is not None:
            setattr(m, plain, row[plain])
    stamped(m.ts, row["ts"])
    if row["day"] is not None:
        m.day = row["day"].strftime("%Y-%m-%d").zfill(10)
    if row["dose"] is not None:
        m.dose = f"{row['dose']:.2f}"
    if row["device"] is not None:
        m.device.SetInParent()
        for plain in ["id", "fw"]:
            if row["device"][plain] is not None:
                setattr(m.device, plain, row["device"][plain])
    return m, shown_ours(row)


def protobuf_case(name, of, rows, file, references):
    client = SchemaRegistryClient.new_client({"url": "mock://" + name})
    serializer = ProtobufSerializer(of, client, {"use.deprecated.format": False, "skip.known.types": True})
    context = SerializationContext(name, MessageField.VALUE)
    text = lambda file: open(os.path.join(HERE, file)).read()
    return {
        "schema": text(file), "references": [[r, text(r)] for r in references],
        "values": [serializer(message, context).hex() for message, _ in rows], "rows": [shown for _, shown in rows],
    }


def write(name, cases):
    with open(os.path.join(HERE, name), "w") as out:
        json.dump(cases, out, indent=0, ensure_ascii=False)
        out.write("\n")


def main():
    chance = random.Random(7)
    write("avro.json", {
        "wide": case("wide", WIDE, [wide(chance) for _ in range(40)], shown),
        "ours": case("ours", OURS, [ours(chance) for _ in range(40)], shown_ours),
    })
    Vitals, Ours = generated()
    write("protobuf.json", {
        "vitals": protobuf_case("vitals", Vitals, [vitals_message(Vitals, chance) for _ in range(40)], "vitals.proto", ["device.proto"]),
        "ours": protobuf_case("ours-proto", Ours, [ours_message(Ours, chance) for _ in range(40)], "ours.proto", []),
    })


if __name__ == "__main__":
    main()

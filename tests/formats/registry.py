"""A schema registry on loopback, with the paths of Confluent's that clients ask for. It holds what it is given and judges nothing."""
import base64, json, os, threading, urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from google.protobuf import descriptor_pb2

HERE = os.path.dirname(os.path.abspath(__file__))


class Registry:
    def __init__(self):
        self.schemas, self.subjects, self.asked, self.ill = [], {}, [], False
        self.lock = threading.Lock()
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def answer(self):
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                path = urllib.parse.urlsplit(self.path).path
                with registry.lock:
                    status, answer = registry.answer(self.command, [urllib.parse.unquote(p) for p in path.strip("/").split("/")], body)
                answer = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-type", "application/vnd.schemaregistry.v1+json")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_POST = answer

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def told(self, method, start):
        """How often it was asked."""
        return sum(m == method and p.startswith(start) for m, p in self.asked)

    def text_of(self, schema):
        """Python's client sends a compiled file; a registry gives its text."""
        if schema.get("schemaType") != "PROTOBUF" or "syntax" in schema["schema"]:
            return schema["schema"]
        name = descriptor_pb2.FileDescriptorProto.FromString(base64.b64decode(schema["schema"])).name
        return open(os.path.join(HERE, os.path.basename(name))).read()

    def add(self, subject, schema):
        kept = {"schema": self.text_of(schema)}
        kept.update({k: schema[k] for k in ("schemaType", "references") if schema.get(k) not in (None, [], "AVRO")})
        if kept not in self.schemas:
            self.schemas.append(kept)
        id = self.schemas.index(kept) + 1
        versions = self.subjects.setdefault(subject, [])
        if id not in versions:
            versions.append(id)
        return id

    def answer(self, method, path, body):
        self.asked.append((method, "/" + "/".join(path)))
        if self.ill:
            return 503, {"error_code": 50003, "message": "no leader"}
        body = json.loads(body) if body else {}
        match path:
            case ["schemas", "ids", id] if method == "GET":
                at = int(id) - 1
                if not 0 <= at < len(self.schemas):
                    return 404, {"error_code": 40403, "message": "Schema not found"}
                return 200, self.schemas[at]
            case ["subjects", subject, "versions"] if method == "POST":
                return 200, {"id": self.add(subject, body)}
            case ["subjects", subject, "versions", version] if method == "GET" and subject in self.subjects:
                versions = self.subjects[subject]
                at = len(versions) - 1 if version == "latest" else int(version) - 1
                if 0 <= at < len(versions):
                    return 200, {"subject": subject, "version": at + 1, "id": versions[at], **self.schemas[versions[at] - 1]}
                return 404, {"error_code": 40402, "message": "Version not found"}
            case ["subjects", subject] if method == "POST" and subject in self.subjects:
                id = self.add(subject, body)
                return 200, {"subject": subject, "version": self.subjects[subject].index(id) + 1, "id": id, **self.schemas[id - 1]}
        return 404, {"error_code": 40401, "message": "Subject not found"}

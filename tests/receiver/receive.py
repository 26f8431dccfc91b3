"""A receiver of OpenTelemetry logs: receive.py PORT DIRECTORY [CERTIFICATE KEY].

Writes each log record that it takes as a line of JSON into DIRECTORY/records, and does as DIRECTORY/mode says: `ok` takes everything,
`reject` all but the first record of a request, a number is the status that it answers. Who has another authorization gets 401.
With a certificate and its key it speaks TLS.
"""
import gzip
import http.server
import json
import pathlib
import ssl
import sys

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse

directory = pathlib.Path(sys.argv[2])


def value(any_value):
    kind = any_value.WhichOneof("value")
    if kind == "kvlist_value":
        return attributes(any_value.kvlist_value.values)
    return getattr(any_value, kind)


def attributes(pairs):
    found = {pair.key: value(pair.value) for pair in pairs}
    assert len(found) == len(pairs), "a key is there twice"
    return found


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body=b""):
        self.send_response(status)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(body)))
        if status == 429:
            self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        length = self.headers["Content-Length"]
        if length is None:
            return self.answer(411)
        body = self.rfile.read(int(length))
        mode = (directory / "mode").read_text().strip()
        if self.path != "/v1/logs" or self.headers["Content-Type"] != "application/x-protobuf":
            return self.answer(404)
        if self.headers["Authorization"] != "Bearer sesame":
            return self.answer(401)
        if mode.isdigit():
            return self.answer(int(mode))
        encoding = self.headers["Content-Encoding"]
        if encoding == "gzip":
            body = gzip.decompress(body)
        elif encoding is not None:
            return self.answer(415)
        request = ExportLogsServiceRequest.FromString(body)
        response, lines = ExportLogsServiceResponse(), []
        for resource_logs in request.resource_logs:
            resource = attributes(resource_logs.resource.attributes)
            for scope_logs in resource_logs.scope_logs:
                for record in scope_logs.log_records:
                    lines.append(json.dumps({
                        "encoding": encoding,
                        "resource": resource,
                        "scope": scope_logs.scope.name,
                        "event": record.event_name,
                        "time": record.time_unix_nano,
                        "severity": record.severity_number,
                        "attributes": attributes(record.attributes),
                    }) + "\n")
        if mode == "reject":
            response.partial_success.rejected_log_records = len(lines) - 1
            response.partial_success.error_message = "only one a day"
            lines = lines[:1]
        with open(directory / "records", "a") as records:
            records.writelines(lines)
        self.answer(200, response.SerializeToString())

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
if len(sys.argv) > 3:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[3], sys.argv[4])
    server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()

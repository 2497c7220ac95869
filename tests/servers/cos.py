"""A fake of Tencent COS for tests: one bucket in memory, its own signing, uploads in parts.

    cos.py PORT BUCKET SECRET_ID SECRET_KEY

Whether a request is signed rightly says the vendor's SDK: it signs the same request again with the time that the request names, and
the signatures must agree. Host names other than <bucket>.* do not exist, as with the real one. Nothing is kept on the disk.
"""

import base64
import hashlib
import re
import sys
import types
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.sax.saxutils import escape

from qcloud_cos import CosConfig, cos_auth

PORT, BUCKET, SECRET_ID, SECRET_KEY = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
PART_SIZE_MIN = 1 << 20

objects = {}
uploads = {}


class Refusal(Exception):
    def __init__(self, status, code):
        self.status, self.code = status, code


def signed_again(method, path, query, headers, start, end, header_list):
    """The Authorization header that the vendor's SDK makes of the same request."""
    config = CosConfig(Region="test", SecretId=SECRET_ID, SecretKey=SECRET_KEY, SignHost="host" in header_list)
    signed = {name: value for name, value in headers.items() if name.lower() in header_list}
    request = types.SimpleNamespace(method=method, url=f"http://{headers['host']}{path}", headers=signed)
    # The SDK begins a minute before now and ends `expire` after it.
    clock, cos_auth.time = cos_auth.time, types.SimpleNamespace(time=lambda: start + 60)
    try:
        auth = cos_auth.CosS3Auth(config, path, dict(query), expire=end - start - 60)
        return auth(request).headers["Authorization"]
    finally:
        cos_auth.time = clock


def field(authorization, name):
    found = re.search(rf"(?:^|&){name}=([^&]*)", authorization)
    return found.group(1) if found else ""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_request(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        try:
            url = urlsplit(self.path)
            query = parse_qsl(url.query, keep_blank_values=True)
            path = unquote(url.path)
            self.judge_host()
            self.judge_signature(path, query)
            self.answer(path[1:], dict(query), body)
        except Refusal as refusal:
            text = f"<?xml version='1.0'?><Error><Code>{refusal.code}</Code><Message>no</Message></Error>"
            self.reply(refusal.status, text.encode(), {"content-type": "application/xml"})

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_request

    def judge_host(self):
        if not self.headers["host"].startswith(f"{BUCKET}."):
            raise Refusal(404, "NoSuchBucket")

    def judge_signature(self, path, query):
        authorization = self.headers.get("authorization", "")
        if field(authorization, "q-ak") != SECRET_ID:
            raise Refusal(403, "InvalidAccessKeyId")
        start, end = (int(second) for second in field(authorization, "q-sign-time").split(";"))
        header_list = field(authorization, "q-header-list").split(";")
        again = signed_again(self.command, path, query, self.headers, start, end, header_list)
        for name in ("q-signature", "q-header-list", "q-url-param-list"):
            if field(again, name) != field(authorization, name):
                raise Refusal(403, "SignatureDoesNotMatch")

    def answer(self, key, query, body):
        digest = hashlib.md5(body)
        sent_md5 = self.headers.get("content-md5")
        if sent_md5 and base64.b64encode(digest.digest()).decode() != sent_md5:
            raise Refusal(400, "BadDigest")
        etag = f'"{digest.hexdigest()}"'
        if self.command == "GET" and not key:
            return self.list(query)
        if self.command in ("GET", "HEAD"):
            return self.get(key)
        if self.command == "PUT" and "uploadId" in query:
            self.upload(key, query)[int(query["partNumber"])] = (etag, body)
            return self.reply(200, b"", {"etag": etag})
        if self.command == "PUT":
            objects[key] = (body, self.kept_headers(), etag)
            return self.reply(200, b"", {"etag": etag})
        if self.command == "POST" and "uploads" in query:
            upload_id = f"upload-{len(uploads) + 1}"
            uploads[upload_id] = (key, self.kept_headers(), {})
            text = f"<InitiateMultipartUploadResult><Bucket>{BUCKET}</Bucket><Key>{escape(key)}</Key>"
            return self.reply(200, f"{text}<UploadId>{upload_id}</UploadId></InitiateMultipartUploadResult>".encode())
        if self.command == "POST":
            return self.complete(key, query, body.decode())
        if self.command == "DELETE" and "uploadId" in query:
            self.upload(key, query)
            del uploads[query["uploadId"]]
            return self.reply(204, b"")
        raise Refusal(405, "MethodNotAllowed")

    def upload(self, key, query):
        of_key, _, parts = uploads.get(query["uploadId"], (None, None, None))
        if of_key != key:
            raise Refusal(404, "NoSuchUpload")
        return parts

    def complete(self, key, query, text):
        parts = self.upload(key, query)
        wanted = re.findall(r"<PartNumber>(\d+)</PartNumber>\s*<ETag>([^<]*)</ETag>", text)
        content = []
        for number, etag in wanted:
            held_etag, body = parts.get(int(number), (None, b""))
            if held_etag.strip('"') != etag.replace("&quot;", "").strip('"'):
                raise Refusal(400, "InvalidPart")
            content.append(body)
        if not content or any(len(body) < PART_SIZE_MIN for body in content[:-1]):
            raise Refusal(400, "EntityTooSmall")
        etag = f'"{hashlib.md5(b"".join(content)).hexdigest()}-{len(content)}"'
        objects[key] = (b"".join(content), uploads.pop(query["uploadId"])[1], etag)
        text = f"<CompleteMultipartUploadResult><Key>{escape(key)}</Key><ETag>{escape(etag)}</ETag>"
        self.reply(200, f"{text}</CompleteMultipartUploadResult>".encode())

    def get(self, key):
        if key not in objects:
            raise Refusal(404, "NoSuchKey")
        body, headers, etag = objects[key]
        headers = headers | {"etag": etag, "x-cos-hash-crc64ecma": "0"}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
        if not wanted:
            return self.reply(200, body, headers)
        first, last = int(wanted[1]), min(int(wanted[2] or len(body) - 1), len(body) - 1)
        headers["content-range"] = f"bytes {first}-{last}/{len(body)}"
        self.reply(206, body[first : last + 1], headers)

    def list(self, query):
        keys = sorted(key for key in objects if key.startswith(query.get("prefix", "")))
        keys = [key for key in keys if key > query.get("marker", "")]
        page = keys[: int(query.get("max-keys", 1000))]
        items = "".join(
            f"<Contents><Key>{escape(key)}</Key><ETag>&quot;x&quot;</ETag><Size>{len(objects[key][0])}</Size>"
            "<LastModified>2026-08-17T21:59:02.000Z</LastModified></Contents>"
            for key in page
        )
        truncated = "true" if len(page) < len(keys) else "false"
        marker = f"<NextMarker>{escape(page[-1])}</NextMarker>" if page else ""
        text = f"<ListBucketResult><IsTruncated>{truncated}</IsTruncated>{marker}{items}</ListBucketResult>"
        self.reply(200, text.encode(), {"content-type": "application/xml"})

    def kept_headers(self):
        names = [name for name in self.headers if name.lower().startswith("x-cos-meta-") or name.lower() == "content-type"]
        return {name: self.headers[name] for name in names}

    def reply(self, status, body, headers={}):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()

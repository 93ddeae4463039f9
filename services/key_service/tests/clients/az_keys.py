"""The unmodified `az keyvault key` commands (azure-cli) against the key service, all of them. What the service encrypts and
signs is checked by the package `cryptography`. Each check prints one line.

Signing in and listing subscriptions is not the key service's business, so a stand-in here answers those requests: it hands out
the bearer token that the caller of this script made. Everything under `keyvault key` goes to the service."""

import base64
import hashlib
import io
import json
import os
import ssl
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

VAULT = os.environ["CASEMATE_VAULT"]
FOLDER = Path(os.environ["CASEMATE_FOLDER"])
OFFICER = os.environ["CASEMATE_OFFICER"]
PORT = VAULT.rsplit(":", 1)[1]
TENANT = "11111111-2222-3333-4444-555555555555"
SUBSCRIPTION = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
SPACE = Path(tempfile.mkdtemp(prefix="az-"))
# With a token, keys are asked for of the types that live in it.
TOKEN = os.environ.get("CASEMATE_HSM_PLATFORM", "")
RSA, EC = ("RSA-HSM", "EC-HSM") if TOKEN else ("RSA", "EC")


class SignIn(BaseHTTPRequestHandler):
    """OpenID discovery, a token for any client, one subscription."""

    def log_message(self, *_):
        pass

    def answer(self, body):
        text = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self):
        base = f"https://localhost:{self.server.server_port}"
        if "openid-configuration" in self.path:
            self.answer(
                {
                    "issuer": f"{base}/{TENANT}/v2.0",
                    "authorization_endpoint": f"{base}/{TENANT}/oauth2/v2.0/authorize",
                    "token_endpoint": f"{base}/{TENANT}/oauth2/v2.0/token",
                }
            )
        elif self.path.startswith("/subscriptions"):
            one = {"id": f"/subscriptions/{SUBSCRIPTION}", "subscriptionId": SUBSCRIPTION, "tenantId": TENANT}
            self.answer({"value": [one | {"displayName": "test", "state": "Enabled", "managedByTenants": []}]})
        else:
            self.send_error(404)

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer({"access_token": OFFICER, "token_type": "Bearer", "expires_in": 3600})


def sign_in_server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), SignIn)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(FOLDER / "tls.pem", FOLDER / "tls.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"https://localhost:{server.server_port}"


os.environ |= {
    "AZURE_CONFIG_DIR": str(SPACE / "config"),
    "AZURE_CORE_INSTANCE_DISCOVERY": "no",
    "AZURE_CORE_COLLECT_TELEMETRY": "no",
    "AZURE_CORE_ONLY_SHOW_ERRORS": "yes",
    "AZURE_CORE_NO_COLOR": "yes",
    "REQUESTS_CA_BUNDLE": str(FOLDER / "ca.pem"),
    "NO_PROXY": "localhost,127.0.0.1",
}

from azure.cli.core import get_default_cli  # noqa: E402  (reads its environment when it is imported)
from cryptography.hazmat.primitives import hashes, serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils  # noqa: E402

COUNT = 0


def check(what, holds):
    global COUNT
    assert holds, what
    COUNT += 1
    print(f"{COUNT:3} {what}", flush=True)


def az(*arguments):
    """What a command prints; a failure raises."""
    cli, out = get_default_cli(), io.StringIO()
    code = cli.invoke([*arguments, "--output", "json"], out_file=out)
    if code != 0:
        raise cli.result.error or AssertionError(f"az {' '.join(arguments)}: {code}")
    return json.loads(out.getvalue() or "null")


def key(verb, *arguments, name="life"):
    return az("keyvault", "key", *verb.split(), "--vault-name", "localhost", "--name", name, *arguments)


def refused(what, call, text):
    try:
        call()
    except SystemExit as ended:
        # What is not found ends `show` with 3; the answer goes to standard error.
        check(what, ended.code == 3 and text == "KeyNotFound")
        return
    except Exception as raised:
        check(what, text in str(raised))
        return
    raise AssertionError(f"not refused: {what}")


def decoded(text):
    """Base64 in either alphabet, padded or not: az has all of it."""
    text = text.replace("-", "+").replace("_", "/").rstrip("=")
    return base64.b64decode(text + "=" * (-len(text) % 4))


def sign_in():
    server = sign_in_server()
    az(
        *("cloud", "register", "-n", "Test", "--skip-endpoint-discovery"),
        *("--endpoint-resource-manager", server, "--endpoint-active-directory", server),
        *("--endpoint-active-directory-resource-id", f"{server}/", "--suffix-keyvault-dns", f":{PORT}"),
        *("--endpoint-microsoft-graph-resource-id", f"{server}/"),
    )
    az("cloud", "set", "-n", "Test")
    az("login", "--service-principal", "-u", SUBSCRIPTION, "-p", "any", "--tenant", TENANT)


def lifecycle():
    made = key("create", "--kty", RSA, "--size", "3072", "--tags", "purpose=test")
    check("create: id", made["key"]["kid"].startswith(f"{VAULT}/keys/life/"))
    check("create: type", made["key"]["kty"] == RSA)
    check("create: platform", made["attributes"].get("hsmPlatform") in ((TOKEN,) if TOKEN else (None, "0")))
    check("create: tags", made["tags"] == {"purpose": "test"})
    check("show", key("show")["key"]["kid"] == made["key"]["kid"])
    version = made["key"]["kid"].rsplit("/", 1)[1]
    check("show --version", key("show", "--version", version)["key"]["n"] == made["key"]["n"])
    second = key("create", "--kty", "EC-HSM", "--curve", "P-384", name="curve")
    check("create EC-HSM", (second["key"]["kty"], second["key"]["crv"]) == ("EC-HSM", "P-384"))
    names = [item["name"] for item in az("keyvault", "key", "list", "--vault-name", "localhost")]
    check("list", names == ["curve", "life"])
    rotated = key("rotate")
    check("rotate", rotated["key"]["kid"] != made["key"]["kid"])
    versions = key("list-versions")
    check("list-versions", {item["kid"] for item in versions} == {made["key"]["kid"], rotated["key"]["kid"]})
    changed = key("set-attributes", "--enabled", "false", "--tags", "a=b")
    check("set-attributes: disabled", changed["attributes"]["enabled"] is False)
    check("set-attributes: tags", changed["tags"] == {"a": "b"})
    refused("a disabled key does not sign", lambda: signed("life", "RS256", b"x"), "KeyDisabled")
    key("set-attributes", "--enabled", "true")
    expiry = key("set-attributes", "--expires", "2040-01-01T00:00:00Z")["attributes"]["expires"]
    check("set-attributes: expiry", expiry.startswith("2040-01-01"))


def deletion():
    gone = key("delete", name="curve")
    check("delete", gone["recoveryId"] == f"{VAULT}/deletedkeys/curve")
    refused("a deleted key is not shown", lambda: key("show", name="curve"), "KeyNotFound")
    deleted = az("keyvault", "key", "list-deleted", "--vault-name", "localhost")
    check("list-deleted", [item["name"] for item in deleted] == ["curve"])
    check("show-deleted", key("show-deleted", name="curve")["scheduledPurgeDate"] is not None)
    check("recover", key("recover", name="curve")["key"]["crv"] == "P-384")
    key("delete", name="curve")
    key("purge", name="curve")
    refused("purge", lambda: key("show-deleted", name="curve"), "KeyNotFound")


def imports():
    private = rsa.generate_private_key(65537, 2048)
    pem = SPACE / "key.pem"
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    pem.write_bytes(private.private_bytes(*form))
    brought = key("import", "--pem-file", str(pem), "--protection", "hsm" if TOKEN else "software", name="brought")
    modulus = int.from_bytes(decoded(brought["key"]["n"]), "big")
    check("import: the key is that key", modulus == private.public_key().public_numbers().n)
    target = SPACE / "public.pem"
    key("download", "--file", str(target), "--encoding", "PEM", name="brought")
    public = serialization.load_pem_public_key(target.read_bytes())
    check("download: the public key", public.public_numbers() == private.public_key().public_numbers())
    wrapped = private.public_key().encrypt(b"from outside", padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None))
    plain = key("decrypt", "--algorithm", "RSA-OAEP-256", "--value", base64.b64encode(wrapped).decode(), name="brought")
    check("decrypt what was encrypted outside", decoded(plain["result"]) == b"from outside")
    for algorithm in ("RSA1_5", "RSA-OAEP", "RSA-OAEP-256"):
        value = key("encrypt", "--algorithm", algorithm, "--value", "text", "--data-type", "plaintext", name="brought")["result"]
        back = key("decrypt", "--algorithm", algorithm, "--value", value, name="brought")
        check(f"encrypt and decrypt: {algorithm}", decoded(back["result"]) == b"text")


def signed(name, algorithm, message):
    hashed = hashlib.new({"256": "sha256", "384": "sha384", "512": "sha512"}[algorithm[-3:]], message).digest()
    digest = base64.b64encode(hashed).decode()
    return digest, key("sign", "--algorithm", algorithm, "--digest", digest, name=name)["signature"]


def signatures():
    key("create", "--kty", EC, "--curve", "P-256", name="signer")
    target = SPACE / "signer.pem"
    key("download", "--file", str(target), name="signer")
    public = serialization.load_pem_public_key(target.read_bytes())
    digest, signature = signed("signer", "ES256", b"message")
    raw = decoded(signature)
    numbers = [int.from_bytes(half, "big") for half in (raw[:32], raw[32:])]
    public.verify(utils.encode_dss_signature(*numbers), b"message", ec.ECDSA(hashes.SHA256()))
    check("sign: cryptography verifies ES256", True)
    for name, algorithms in {"brought": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), "signer": ("ES256",)}.items():
        for algorithm in algorithms:
            digest, signature = signed(name, algorithm, b"message")
            proved = key("verify", "--algorithm", algorithm, "--digest", digest, "--signature", signature, name=name)
            check(f"sign and verify: {algorithm}", proved["isValid"] is True)


def backups():
    saved = SPACE / "saved"
    if TOKEN:
        refused("backup of a key in a token", lambda: key("backup", "--file", str(saved), name="signer"), "HsmKeyNotBackedUp")
        return
    before = key("show", name="signer")["key"]["kid"]
    key("backup", "--file", str(saved), name="signer")
    key("delete", name="signer")
    key("purge", name="signer")
    back = az("keyvault", "key", "restore", "--vault-name", "localhost", "--file", str(saved))
    check("backup, purge, restore", back["key"]["kid"] == before)
    digest, signature = signed("signer", "ES256", b"again")
    check("a restored key signs", key("verify", "--algorithm", "ES256", "--digest", digest, "--signature", signature, name="signer")["isValid"])


def policies():
    shown = key("rotation-policy show")
    check("rotation-policy show", shown["lifetimeActions"] is not None)
    policy = {"lifetimeActions": [{"trigger": {"timeAfterCreate": "P30D"}, "action": {"type": "Rotate"}}], "attributes": {"expiryTime": "P90D"}}
    file = SPACE / "policy.json"
    file.write_text(json.dumps(policy))
    changed = key("rotation-policy update", "--value", str(file))
    check("rotation-policy update", changed["expiresIn"] == "P90D")
    release = {"version": "1.0.0", "anyOf": [{"authority": "https://attest.casemate.test", "allOf": [{"claim": "x-ms-compliance-status", "equals": "azure-compliant-cvm"}]}]}
    file = SPACE / "release.json"
    file.write_text(json.dumps(release))
    made = key("create", "--kty", "RSA-HSM", "--exportable", "true", "--policy", str(file), name="exportable")
    check("create --exportable --policy", made["attributes"]["exportable"] is True)
    check("the policy is kept", made["releasePolicy"] is not None)
    refused(
        "an exportable key needs a policy",
        lambda: key("create", "--kty", "RSA-HSM", "--exportable", "true", name="none"),
        "policy",
    )
    value = az("keyvault", "key", "random", "--id", VAULT, "--count", "16")
    check("random", len(decoded(value["value"])) == 16)


sign_in()
for part in (lifecycle, deletion, imports, signatures, backups, policies):
    part()
print(f"{COUNT} checks, all done")
sys.exit(0)

"""The unmodified Azure SDK for Python (azure-keyvault-keys: KeyClient and CryptographyClient) against the key service. What
the service encrypts, signs or releases is checked by the package `cryptography`. Each check prints one line."""

import base64
import datetime
import hashlib
import json
import os

from azure.core.credentials import AccessToken
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.core.rest import HttpRequest
from azure.keyvault.keys import (
    JsonWebKey,
    KeyClient,
    KeyReleasePolicy,
    KeyRotationLifetimeAction,
    KeyRotationPolicy,
    KeyRotationPolicyAction,
)
from azure.keyvault.keys.crypto import (
    CryptographyClient,
    EncryptionAlgorithm,
    SignatureAlgorithm,
)
from cryptography.hazmat.primitives import hashes, keywrap, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

VAULT = os.environ["CASEMATE_VAULT"]
CA = os.environ["CASEMATE_CA"]
OFFICER = os.environ["CASEMATE_OFFICER"]
RELEASER = os.environ["CASEMATE_RELEASER"]
POLICY = os.environ["CASEMATE_POLICY"].encode()
EVIDENCE = json.loads(os.environ["CASEMATE_EVIDENCE"])
TRANSFER = serialization.load_der_private_key(base64.b64decode(os.environ["CASEMATE_TRANSFER_KEY"]), None)
HASHES = {256: hashes.SHA256(), 384: hashes.SHA384(), 512: hashes.SHA512()}
HSM_PLATFORM = os.environ["CASEMATE_HSM_PLATFORM"] or None
COUNT = 0


class Credential:
    def __init__(self, token):
        self.token = token

    def get_token(self, *scopes, **_):
        assert scopes == ("https://vault.casemate.test/.default",), scopes
        return AccessToken(self.token, 4_000_000_000)


def check(what, holds):
    global COUNT
    assert holds, what
    COUNT += 1
    print(f"{COUNT:3} {what}")


def refused(what, error, call, text=""):
    try:
        call()
    except error as raised:
        check(what, text in str(raised))
        return
    raise AssertionError(f"not refused: {what}")


def client(token):
    return KeyClient(VAULT, Credential(token), connection_verify=CA, verify_challenge_resource=False)


def crypto(key):
    return CryptographyClient(
        key, Credential(OFFICER), connection_verify=CA, verify_challenge_resource=False
    )


def unpadded(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def post(path, body):
    """A request that the SDK would do by itself, without its client-side cryptography."""
    answer = KEYS.send_request(HttpRequest("POST", f"{VAULT}{path}", json=body))
    answer.raise_for_status()
    return answer.json()


def encoded(value):
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


KEYS = client(OFFICER)
RELEASES = client(RELEASER)


def key_lifecycle():
    key = KEYS.create_rsa_key("life", size=3072, tags={"purpose": "test"})
    check("create RSA: type", key.key_type == "RSA")
    check("create RSA: size", len(key.key.n) == 384)
    check("create RSA: tags", key.properties.tags == {"purpose": "test"})
    check("create RSA: enabled", key.properties.enabled is True)
    check("create RSA: recovery level", key.properties.recovery_level == "Recoverable+Purgeable")
    check("get newest", KEYS.get_key("life").id == key.id)
    check("get version", KEYS.get_key("life", key.properties.version).id == key.id)
    second = KEYS.create_rsa_key("life", hardware_protected=True)
    check("create another version, RSA-HSM", second.key_type == "RSA-HSM")
    versions = list(KEYS.list_properties_of_key_versions("life"))
    check("list versions", {item.id for item in versions} == {key.id, second.id})
    for number in range(30):
        KEYS.create_oct_key(f"many-{number:02}", size=128)
    names = [item.name for item in KEYS.list_properties_of_keys(max_page_size=7)]
    check("list keys over pages", names == sorted(names) and len(names) == 31)
    expires = datetime.datetime(2040, 1, 1, tzinfo=datetime.timezone.utc)
    changed = KEYS.update_key_properties("life", expires_on=expires, tags={"a": "b"}, key_operations=["sign"])
    check("update: expiry", changed.properties.expires_on == expires)
    check("update: tags", changed.properties.tags == {"a": "b"})
    check("update: operations", changed.key_operations == ["sign"])
    KEYS.update_key_properties("life", enabled=False)
    check("update: disabled", KEYS.get_key("life").properties.enabled is False)
    deleted = KEYS.begin_delete_key("life").result()
    check("delete", deleted.recovery_id == f"{VAULT}/deletedkeys/life")
    check("delete: 90 days", (deleted.scheduled_purge_date - deleted.deleted_date).days == 90)
    refused("a deleted key is not found", ResourceNotFoundError, lambda: KEYS.get_key("life"), "KeyNotFound")
    refused("its name is held", ResourceExistsError, lambda: KEYS.create_rsa_key("life"), "Conflict")
    check("get deleted", KEYS.get_deleted_key("life").name == "life")
    check("list deleted", [item.name for item in KEYS.list_deleted_keys()] == ["life"])
    check("recover", KEYS.begin_recover_deleted_key("life").result().id == second.id)
    KEYS.begin_delete_key("life").result()
    KEYS.purge_deleted_key("life")
    refused("a purged key is gone", ResourceNotFoundError, lambda: KEYS.get_deleted_key("life"))


def imports():
    private = rsa.generate_private_key(65537, 2048)
    numbers = private.private_numbers()
    raw = lambda number: number.to_bytes((number.bit_length() + 7) // 8, "big")
    jwk = JsonWebKey(
        kty="RSA",
        n=raw(numbers.public_numbers.n),
        e=raw(numbers.public_numbers.e),
        d=raw(numbers.d),
        p=raw(numbers.p),
        q=raw(numbers.q),
        dp=raw(numbers.dmp1),
        dq=raw(numbers.dmq1),
        qi=raw(numbers.iqmp),
    )
    key = KEYS.import_key("imported", jwk, hardware_protected=True)
    check("import RSA as RSA-HSM", key.key_type == "RSA-HSM" and key.key.n == jwk.n and key.key.d is None)
    wrapped = private.public_key().encrypt(b"from outside", padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None))
    result = crypto(key).decrypt(EncryptionAlgorithm.rsa_oaep_256, wrapped)
    check("the imported key decrypts what was encrypted outside", result.plaintext == b"from outside")
    jwk.p = jwk.q
    refused("an inconsistent key", HttpResponseError, lambda: KEYS.import_key("bad", jwk), "BadParameter")
    key = KEYS.import_key("symmetric", JsonWebKey(kty="oct", k=bytes(range(32))))
    wrapped = unpadded(post("/keys/symmetric/wrapkey", {"alg": "A256KW", "value": encoded(b"0" * 32)})["value"])
    check("import oct", key.key_type == "oct" and keywrap.aes_key_unwrap(bytes(range(32)), wrapped) == b"0" * 32)


def rsa_operations():
    key = KEYS.create_rsa_key("rsa", size=2048)
    public = rsa.RSAPublicNumbers(int.from_bytes(key.key.e, "big"), int.from_bytes(key.key.n, "big")).public_key()
    cryptography = crypto(key)
    for name in ["RSA1_5", "RSA-OAEP", "RSA-OAEP-256"]:
        sealed = cryptography.encrypt(name, b"plain").ciphertext
        check(f"{name}: encrypted here, decrypted there", cryptography.decrypt(name, sealed).plaintext == b"plain")
        wrapped = post("/keys/rsa/wrapkey", {"alg": name, "value": encoded(b"key")})
        opened = cryptography.unwrap_key(name, unpadded(wrapped["value"])).key
        check(f"{name}: wrapped and unwrapped there", opened == b"key")
    for bits, algorithm in HASHES.items():
        digest = hashlib.new(f"sha{bits}", b"message").digest()
        for kind, scheme in [
            ("RS", padding.PKCS1v15()),
            ("PS", padding.PSS(padding.MGF1(algorithm), algorithm.digest_size)),
        ]:
            name = SignatureAlgorithm(f"{kind}{bits}")
            signature = cryptography.sign(name, digest).signature
            public.verify(signature, digest, scheme, utils.Prehashed(algorithm))
            check(f"{name.value}: signed there, verified by cryptography", True)
            body = {"alg": name.value, "digest": encoded(digest)}
            good = post("/keys/rsa/verify", {**body, "value": encoded(signature)})
            bad = post("/keys/rsa/verify", {**body, "value": encoded(signature[::-1])})
            check(f"{name.value}: verified there", (good["value"], bad["value"]) == (True, False))
    refused(
        "an RSA key has no ES256",
        HttpResponseError,
        lambda: post("/keys/rsa/sign", {"alg": "ES256", "value": "AAAA"}),
    )


def ec_operations():
    for curve, name, bits, group in [
        ("P-256", "ES256", 256, ec.SECP256R1()),
        ("P-384", "ES384", 384, ec.SECP384R1()),
        ("P-521", "ES512", 512, ec.SECP521R1()),
        ("P-256K", "ES256K", 256, ec.SECP256K1()),
    ]:
        key = KEYS.create_ec_key("ec", curve=curve, hardware_protected=True)
        check(f"create EC-HSM {curve}", (key.key_type, key.key.crv) == ("EC-HSM", curve))
        x, y = (int.from_bytes(number, "big") for number in (key.key.x, key.key.y))
        public = ec.EllipticCurvePublicNumbers(x, y, group).public_key()
        digest = hashlib.new(f"sha{bits}", b"message").digest()
        signature = crypto(key).sign(SignatureAlgorithm(name), digest).signature
        half = len(signature) // 2
        der = utils.encode_dss_signature(*(int.from_bytes(part, "big") for part in (signature[:half], signature[half:])))
        public.verify(der, digest, ec.ECDSA(utils.Prehashed(HASHES[bits])))
        check(f"{name}: signed there, verified by cryptography", True)
        check(f"{name}: verified by the client", crypto(key).verify(SignatureAlgorithm(name), digest, signature).is_valid)


def oct_operations():
    for bits in [128, 192, 256]:
        key = KEYS.create_oct_key("oct", size=bits, hardware_protected=True)
        check(f"create oct-HSM {bits}", key.key_type == "oct-HSM" and key.key.k is None)
        cryptography = crypto(key)
        name = EncryptionAlgorithm(f"A{bits}GCM")
        sealed = cryptography.encrypt(name, b"plain", additional_authenticated_data=b"about")
        opened = cryptography.decrypt(
            name,
            sealed.ciphertext,
            iv=sealed.iv,
            authentication_tag=sealed.tag,
            additional_authenticated_data=sealed.aad,
        )
        check(f"{name.value}: encrypted and decrypted", opened.plaintext == b"plain" and len(sealed.iv) == 12)
        name = EncryptionAlgorithm(f"A{bits}CBC")
        sealed = cryptography.encrypt(name, b"sixteen bytes ok", iv=b"i" * 16)
        check(f"{name.value}: encrypted and decrypted", cryptography.decrypt(name, sealed.ciphertext, iv=sealed.iv).plaintext == b"sixteen bytes ok")
        # For these two the SDK would not ask the vault: it computes with a random key of its own where it got none
        # ("k" never leaves a vault), so they are sent without its client-side cryptography.
        iv = encoded(b"i" * 16)
        sealed = post("/keys/oct/encrypt", {"alg": f"A{bits}CBCPAD", "value": encoded(b"plain"), "iv": iv})
        opened = post("/keys/oct/decrypt", {"alg": f"A{bits}CBCPAD", "value": sealed["value"], "iv": sealed["iv"]})
        check(f"A{bits}CBCPAD: encrypted and decrypted", unpadded(opened["value"]) == b"plain")
        wrapped = post("/keys/oct/wrapkey", {"alg": f"A{bits}KW", "value": encoded(b"k" * 32)})
        opened = post("/keys/oct/unwrapkey", {"alg": f"A{bits}KW", "value": wrapped["value"]})
        check(f"A{bits}KW: wrapped and unwrapped", unpadded(opened["value"]) == b"k" * 32)


def rotation_and_backup():
    key = KEYS.create_ec_key("turn")
    usual = KEYS.get_key_rotation_policy("turn")
    check("rotation policy: the usual one", usual.lifetime_actions[0].action == KeyRotationPolicyAction.notify)
    action = KeyRotationLifetimeAction(KeyRotationPolicyAction.rotate, time_after_create="P2M")
    policy = KEYS.update_key_rotation_policy("turn", KeyRotationPolicy(lifetime_actions=[action], expires_in="P90D"))
    check("rotation policy: set", (policy.expires_in, policy.lifetime_actions[0].time_after_create) == ("P90D", "P2M"))
    check("rotation policy: kept", KEYS.get_key_rotation_policy("turn").updated_on == policy.updated_on)
    rotated = KEYS.rotate_key("turn")
    check("rotate", rotated.id != key.id and rotated.key_type == "EC")
    left = rotated.properties.expires_on - rotated.properties.created_on
    check("rotate: expires as the policy says", left.days == 90)
    backup = KEYS.backup_key("turn")
    check("backup is opaque", b"turn" not in backup and b"kty" not in backup)
    refused("restore over a live key", ResourceExistsError, lambda: KEYS.restore_key_backup(backup), "Conflict")
    KEYS.begin_delete_key("turn").result()
    KEYS.purge_deleted_key("turn")
    check("restore", KEYS.restore_key_backup(backup).id == rotated.id)
    check("restore: all versions", len(list(KEYS.list_properties_of_key_versions("turn"))) == 2)
    check("random bytes", len({KEYS.get_random_bytes(32) for _ in range(4)}) == 4)


def released(name, enc, digest):
    """Releases the newest version; returns the key's payload, unwrapped with `cryptography`, and the answer."""
    result = RELEASES.release_key(name, EVIDENCE.pop(), algorithm=enc, nonce=f"nonce-{name}")
    _, payload, _ = result.value.split(".")
    payload = json.loads(unpadded(payload))
    wrapped = json.loads(unpadded(payload["response"]["key"]["key"]["key_hsm"]))
    ciphertext = unpadded(wrapped["ciphertext"])
    size = TRANSFER.key_size // 8
    kek = TRANSFER.decrypt(ciphertext[:size], padding.OAEP(padding.MGF1(digest), digest, None))
    return keywrap.aes_key_unwrap_with_padding(kek, ciphertext[size:]), payload


def private_key(der):
    """The PKCS#8 key of a release. SoftHSM2 fills a key up with zeros to whole words of eight bytes before it wraps it."""
    length = 4 + int.from_bytes(der[2:4], "big") if der[1] == 0x82 else 3 + der[2] if der[1] == 0x81 else 2 + der[1]
    filled = der[length:]
    assert filled == b"" or HSM_PLATFORM and filled == bytes(len(filled)) and len(filled) < 8, filled
    return serialization.load_der_private_key(der[:length], None)


def releases():
    policy = KeyReleasePolicy(POLICY)
    wraps = [
        ("CKM_RSA_AES_KEY_WRAP", hashes.SHA1()),
        ("RSA_AES_KEY_WRAP_256", hashes.SHA256()),
        ("RSA_AES_KEY_WRAP_384", hashes.SHA384()),
    ]
    arguments = {"exportable": True, "release_policy": policy, "hardware_protected": True}
    for enc, digest in wraps:
        key = KEYS.create_rsa_key("released-rsa", size=2048, **arguments)
        private, payload = released("released-rsa", enc, digest)
        private = private_key(private)
        check(f"release RSA-HSM, {enc}", private.public_key().public_numbers().n == int.from_bytes(key.key.n, "big"))
        check(f"release RSA-HSM, {enc}: nonce and enc", payload["request"]["nonce"] == "nonce-released-rsa" and payload["request"]["enc"] == enc)
        key = KEYS.create_ec_key("released-ec", curve="P-384", **arguments)
        private, _ = released("released-ec", enc, digest)
        private = private_key(private)
        check(f"release EC-HSM, {enc}", private.public_key().public_numbers().x == int.from_bytes(key.key.x, "big"))
        key = KEYS.create_oct_key("released-oct", size=256, **arguments)
        secret, _ = released("released-oct", enc, digest)
        sealed = crypto(key).encrypt(EncryptionAlgorithm.a256_gcm, b"plain")
        plain = AESGCM(secret).decrypt(sealed.iv, sealed.ciphertext + sealed.tag, None)
        check(f"release oct-HSM, {enc}: opens what the vault encrypted", plain == b"plain")
    used = EVIDENCE.pop()
    RELEASES.release_key("released-oct", used)
    refused("a token twice", HttpResponseError, lambda: RELEASES.release_key("released-oct", used), "TokenReplayed")
    refused("a token that is none", HttpResponseError, lambda: RELEASES.release_key("released-oct", "x"), "TokenMalformed")
    refused("without the role", HttpResponseError, lambda: KEYS.release_key("released-oct", EVIDENCE.pop()), "RoleMissing")
    KEYS.create_rsa_key("kept", hardware_protected=True)
    refused("a key that is not exportable", HttpResponseError, lambda: RELEASES.release_key("kept", EVIDENCE.pop()), "KeyNotExportable")
    refused("exportable without a policy", HttpResponseError, lambda: KEYS.create_rsa_key("x", hardware_protected=True, exportable=True), "AKV.SKR.1004")
    fixed = KeyReleasePolicy(POLICY, immutable=True)
    KEYS.create_ec_key("fixed", exportable=True, release_policy=fixed, hardware_protected=True)
    other = KeyReleasePolicy(POLICY.replace(b"equals", b"equals "))
    refused("an immutable policy", HttpResponseError, lambda: KEYS.update_key_properties("fixed", release_policy=KeyReleasePolicy(POLICY + b" ")), "AKV.SKR.1020")
    refused("a policy that is none", HttpResponseError, lambda: KEYS.create_ec_key("x", exportable=True, release_policy=other, hardware_protected=True), "BadParameter")


def custody():
    """Keys of -HSM types live in a token if there is one, and the others never do."""
    for hardware in [True, False]:
        name = f"custody-{hardware}"
        key = KEYS.create_ec_key(name, hardware_protected=hardware)
        shown = KEYS.send_request(HttpRequest("GET", f"{VAULT}/keys/{name}/?api-version=7.4")).json()
        platform = HSM_PLATFORM if hardware else None
        check(f"{key.key_type}: hsmPlatform is {platform}", shown["attributes"].get("hsmPlatform") == platform)
        if platform:
            refused(f"{key.key_type}: a backup", HttpResponseError, lambda: KEYS.backup_key(name), "HsmKeyNotBackedUp")
        else:
            check(f"{key.key_type}: a backup", KEYS.backup_key(name) is not None)
        rotated = KEYS.rotate_key(name)
        check(f"{key.key_type}: renewed as what it was", (rotated.key_type, rotated.id != key.id) == (key.key_type, True))
        digest = hashlib.sha256(b"message").digest()
        for version in [key, rotated]:
            signature = crypto(version).sign(SignatureAlgorithm.es256, digest).signature
            valid = crypto(version).verify(SignatureAlgorithm.es256, digest, signature).is_valid
            check(f"{key.key_type}: a version signs by its own id", valid)
        KEYS.begin_delete_key(name).result()
        KEYS.purge_deleted_key(name)
        refused(f"{key.key_type}: purged", ResourceNotFoundError, lambda: KEYS.get_deleted_key(name))


key_lifecycle()
imports()
rsa_operations()
ec_operations()
oct_operations()
rotation_and_backup()
releases()
custody()
assert COUNT >= 60, COUNT
print(f"{COUNT} checks, all done")

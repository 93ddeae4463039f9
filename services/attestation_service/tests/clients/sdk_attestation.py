"""The unmodified Azure SDK for Python (azure-security-attestation) against the attestation service: policies, unsigned and
signed, policy signers, signing certificates, and the validation of a token. Each step prints one line."""

import base64
import datetime
import json
import os
import urllib.request
import ssl

from azure.core.credentials import AccessToken
from azure.core.exceptions import HttpResponseError
from azure.security.attestation import (
    AttestationAdministrationClient,
    AttestationClient,
    AttestationPolicyToken,
    AttestationToken,
    AttestationTokenValidationException,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

BASE = os.environ["CASEMATE_ATTESTATION"]
CA = os.environ["CASEMATE_CA"]
TOKEN = os.environ["CASEMATE_TOKEN"]
EVIDENCE = os.environ["CASEMATE_EVIDENCE"]
PERMIT = "version=1.0; authorizationrules { => permit(); }; issuancerules { => issue(type=\"mine\", value=true); };"


class Credential:
    def get_token(self, *scopes, **_):
        assert scopes == ("https://attest.azure.net/.default",), scopes
        return AccessToken(TOKEN, 4_000_000_000)


def administration(base, **arguments):
    return AttestationAdministrationClient(base, Credential(), connection_verify=CA, **arguments)


def signer(key):
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "policy signer")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private.decode(), certificate.public_bytes(serialization.Encoding.PEM).decode()


def hash_of(policy, **signing):
    token = AttestationPolicyToken(policy, **signing)
    return hashes_sha256(token.to_jwt_string().encode())


def hashes_sha256(data):
    digest = hashes.Hash(hashes.SHA256())
    digest.update(data)
    return digest.finalize()


def call(method, path, body):
    request = urllib.request.Request(BASE + path, method=method, data=json.dumps(body).encode())
    request.add_header("Authorization", "Bearer " + TOKEN)
    request.add_header("Content-Type", "application/json")
    context = ssl.create_default_context(cafile=CA)
    with urllib.request.urlopen(request, context=context) as answer:
        return json.loads(answer.read())


def done(step):
    print(step, flush=True)


client = administration(BASE)
shipped, _ = client.get_policy("SevSnpVm")
assert "authorizationrules" in shipped
done("the shipped policy is shown")

result, token = client.set_policy("SevSnpVm", PERMIT)
assert result.policy_resolution == "Updated" and result.policy_signer is None, result.policy_resolution
assert result.policy_token_hash == hash_of(PERMIT), "the hash is that of the policy as it was sent"
assert token.issuer == BASE
assert client.get_policy("SevSnpVm")[0] == PERMIT
done("an unsigned policy is set and shown")

# RSA only: with keys on elliptic curves this version of the SDK does not run on today's `cryptography`.
private, certificate = signer(rsa.generate_private_key(public_exponent=65537, key_size=2048))
result, _ = client.set_policy("SevSnpVm", PERMIT, signing_key=private, signing_certificate=certificate)
shown = x509.load_pem_x509_certificate(result.policy_signer.certificates[0].encode())
assert shown == x509.load_pem_x509_certificate(certificate.encode())
done("a policy signed by a key of its own is set")

result, _ = client.reset_policy("SevSnpVm")
assert result.policy_resolution == "Removed" and client.get_policy("SevSnpVm")[0] == shipped
done("a policy is reset")

try:
    client.set_policy("SevSnpVm", "version=1.0; authorizationrules { => perhaps(); };")
    raise AssertionError("nonsense is accepted")
except HttpResponseError as error:
    assert error.status_code == 400 and "line 1, column 38" in str(error), error
done("nonsense is refused with its place")

one = signer(rsa.generate_private_key(public_exponent=65537, key_size=2048))
two = signer(rsa.generate_private_key(public_exponent=65537, key_size=2048))
der = x509.load_pem_x509_certificate(one[1].encode()).public_bytes(serialization.Encoding.DER)
call(
    "PUT",
    "/providers/isolated",
    {"trustModel": "Isolated", "policySigningCertificates": [base64.b64encode(der).decode()]},
)
isolated = administration(BASE + "/providers/isolated", signing_key=one[0], signing_certificate=one[1])
try:
    administration(BASE + "/providers/isolated").set_policy("SevSnpVm", PERMIT)
    raise AssertionError("an unsigned policy is accepted")
except HttpResponseError as error:
    assert "PolicyNotSigned" in str(error), error
result, _ = isolated.set_policy("SevSnpVm", PERMIT)
assert result.policy_resolution == "Updated" and result.policy_signer is not None
done("an isolated provider takes signed policies only")

result, _ = isolated.add_policy_management_certificate(two[1])
assert result.certificate_resolution == "IsPresent", result.certificate_resolution
certificates, _ = isolated.get_policy_management_certificates()
assert len(certificates) == 2
result, _ = isolated.remove_policy_management_certificate(two[1])
assert result.certificate_resolution == "IsAbsent", result.certificate_resolution
assert len(isolated.get_policy_management_certificates()[0]) == 1
result, _ = isolated.reset_policy("SevSnpVm")
assert result.policy_resolution == "Removed"
done("policy signers are added, listed and removed")

with AttestationClient(BASE, Credential(), connection_verify=CA) as attestation:
    signers = attestation.get_signing_certificates()
    configuration = attestation.get_open_id_metadata()
assert len(signers) == 1 and configuration["jwks_uri"] == BASE + "/certs"
evidence = json.loads(EVIDENCE)
answer = call("POST", "/attest/SevSnpVm?api-version=2022-08-01", evidence)
token = AttestationToken(token=answer["token"])
token._validate_token(signers, issuer=BASE, validate_issuer=True)
assert token._get_body()["x-ms-attestation-type"] == "sevsnpvm"
done("evidence is attested and the token validated")

head, body, signature = answer["token"].split(".")
other = "A" if signature[20] != "A" else "B"
try:
    changed = AttestationToken(token=".".join([head, body, signature[:20] + other + signature[21:]]))
    changed._validate_token(signers)
    raise AssertionError("a token with another signature is accepted")
except AttestationTokenValidationException:
    done("a token with another signature is not validated")
print("all done")

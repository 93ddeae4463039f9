#!/usr/bin/env python3
"""Creates, shows, lists, labels and deletes attestation providers with the unmodified Azure SDK for Python (azure-mgmt-attestation),
and sets policies at their addresses (azure-security-attestation), signed in at the platform's own token endpoint.

Environment: CASEMATE_URL, CASEMATE_CA, CASEMATE_TENANT, CASEMATE_CLIENT_ID, CASEMATE_CLIENT_SECRET, CASEMATE_SUBSCRIPTION as in
sdk_compute.py; CASEMATE_ATTESTATION is the base address of the attestation service.

Prints one line a step; exits with 1 at the first thing that is not as it must be.
"""

import base64
import datetime
import os
import sys

os.environ["REQUESTS_CA_BUNDLE"] = os.environ["CASEMATE_CA"]

from azure.core.exceptions import HttpResponseError, ResourceNotFoundError  # noqa: E402
from azure.identity import ClientSecretCredential  # noqa: E402
from azure.mgmt.attestation import AttestationManagementClient  # noqa: E402
from azure.mgmt.attestation.models import (  # noqa: E402
    AttestationServiceCreationParams,
    AttestationServiceCreationSpecificParams,
    AttestationServicePatchParams,
    JSONWebKey,
    JSONWebKeySet,
)
from azure.mgmt.resource.resources import ResourceManagementClient  # noqa: E402
from azure.security.attestation import AttestationAdministrationClient, AttestationClient  # noqa: E402
from cryptography import x509  # noqa: E402
from cryptography.hazmat.primitives import hashes, serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: E402
from cryptography.x509.oid import NameOID  # noqa: E402

URL = os.environ["CASEMATE_URL"]
CA = os.environ["CASEMATE_CA"]
SUBSCRIPTION = os.environ["CASEMATE_SUBSCRIPTION"]
ATTESTATION = os.environ["CASEMATE_ATTESTATION"]
LOCATION = os.environ.get("CASEMATE_LOCATION", "local")
GROUP = "sdk-rg"
PERMIT = 'version=1.0; authorizationrules { => permit(); }; issuancerules { => issue(type="mine", value=true); };'


def step(text):
    print(text, flush=True)


def check(condition, text):
    if not condition:
        print(f"NOT AS IT MUST BE: {text}", file=sys.stderr)
        sys.exit(1)


def signer():
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
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
    der = base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()
    return private.decode(), certificate.public_bytes(serialization.Encoding.PEM).decode(), der


def parameters(**properties):
    return AttestationServiceCreationParams(
        location=LOCATION, tags={"made-by": "sdk"}, properties=AttestationServiceCreationSpecificParams(**properties)
    )


def main():
    credential = ClientSecretCredential(
        os.environ["CASEMATE_TENANT"],
        os.environ["CASEMATE_CLIENT_ID"],
        os.environ["CASEMATE_CLIENT_SECRET"],
        authority=URL,
        disable_instance_discovery=True,
    )
    scopes = {"base_url": URL, "credential_scopes": [URL + "/.default"]}
    resources = ResourceManagementClient(credential, SUBSCRIPTION, **scopes)
    management = AttestationManagementClient(credential, SUBSCRIPTION, **scopes)
    providers = management.attestation_providers
    resources.resource_groups.create_or_update(GROUP, {"location": LOCATION})
    namespace = resources.providers.get("Microsoft.Attestation")
    check(namespace.registration_state == "Registered", namespace.registration_state)
    check(len(list(management.operations.list())) == 3, "operations")
    step("the namespace is registered, its operations are listed")

    made = providers.create(GROUP, "sdkprovider", parameters())
    check(made.properties.status == "Ready" and made.properties.trust_model == "AAD", str(made))
    check(made.properties.attest_uri == ATTESTATION + "/providers/sdkprovider", made.properties.attest_uri)
    shown = providers.get(GROUP, "sdkprovider")
    check(shown.id == made.id and shown.tags == {"made-by": "sdk"}, str(shown))
    update = providers.update(GROUP, "sdkprovider", AttestationServicePatchParams(tags={"changed": "yes"}))
    check(update.tags == {"changed": "yes"}, str(update.tags))
    names = [provider.name for provider in providers.list_by_resource_group(GROUP).value]
    everywhere = [provider.name for provider in providers.list().value]
    check(names == ["sdkprovider"] and "sdkprovider" in everywhere, f"{names} {everywhere}")
    step("a provider is created, shown, labelled and listed")

    default = providers.get_default_by_location(LOCATION)
    check(default.properties.attest_uri == ATTESTATION, str(default))
    check(providers.list_default().value[0].name == default.name, "default providers")
    step("the default provider is shown")

    administration = AttestationAdministrationClient(made.properties.attest_uri, credential, connection_verify=CA)
    result, token = administration.set_policy("SevSnpVm", PERMIT)
    check(result.policy_resolution == "Updated", str(result))
    check(token.issuer == made.properties.attest_uri, "the answer's issuer is the provider")
    check(administration.get_policy("SevSnpVm")[0] == PERMIT, "the policy is shown")
    with AttestationClient(made.properties.attest_uri, credential, connection_verify=CA) as attestation:
        check(len(attestation.get_signing_certificates()) == 1, "signing certificates")
    root = AttestationAdministrationClient(ATTESTATION, credential, connection_verify=CA)
    try:
        root.set_policy("SevSnpVm", PERMIT)
        check(False, "a tenant set the policy of the platform's own provider")
    except HttpResponseError as error:
        check(error.status_code == 403, str(error))
    step("its policies are administered by whoever may change the resource, and only its")

    private, certificate, der = signer()
    key = JSONWebKey(alg="RS256", kid="signer", kty="RSA", use="sig", x5_c=[der])
    isolated = providers.create(
        GROUP, "sdkisolated", parameters(policy_signing_certificates=JSONWebKeySet(keys_property=[key]))
    )
    check(isolated.properties.trust_model == "Isolated", str(isolated))
    uri = isolated.properties.attest_uri
    try:
        AttestationAdministrationClient(uri, credential, connection_verify=CA).set_policy("SevSnpVm", PERMIT)
        check(False, "an unsigned policy was accepted")
    except HttpResponseError as error:
        check("PolicyNotSigned" in str(error), str(error))
    signing = AttestationAdministrationClient(
        uri, credential, connection_verify=CA, signing_key=private, signing_certificate=certificate
    )
    result, _ = signing.set_policy("SevSnpVm", PERMIT)
    check(result.policy_resolution == "Updated" and result.policy_signer is not None, str(result))
    step("an isolated provider takes signed policies only")

    try:
        providers.create(GROUP, "default", parameters())
        check(False, "the reserved name was accepted")
    except HttpResponseError as error:
        check(error.error.code == "InvalidResourceName", str(error))
    for name in ("sdkprovider", "sdkisolated"):
        providers.delete(GROUP, name)
        try:
            providers.get(GROUP, name)
            check(False, f"{name} is still there")
        except ResourceNotFoundError:
            pass
    check(list(providers.list_by_resource_group(GROUP).value) == [], "the list is empty")
    step("providers are deleted")
    print("all done")


if __name__ == "__main__":
    main()

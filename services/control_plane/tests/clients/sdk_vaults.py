#!/usr/bin/env python3
"""Makes, lists, deletes, recovers and purges vaults with the unmodified Azure SDK for Python (azure-mgmt-keyvault), assigns roles at
key and vault scope (azure-mgmt-authorization), and makes and uses keys at the vaults' own names (azure-keyvault-keys), signed in at
the platform's own token endpoint.

Environment: CASEMATE_URL, CASEMATE_CA, CASEMATE_TENANT, CASEMATE_CLIENT_ID, CASEMATE_CLIENT_SECRET, CASEMATE_SUBSCRIPTION as in
sdk_compute.py. Names are resolved by a CONNECT proxy in this process, which takes every name to this machine.

Prints one line a step; exits with 1 at the first thing that is not as it must be.
"""

import base64
import json
import os
import socket
import sys
import threading
import time
import uuid


def serve_proxy():
    """A proxy that takes CONNECT for any name to the same port of 127.0.0.1; returns its address."""
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source, target):
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def serve(client):
        head = b""
        while b"\r\n\r\n" not in head:
            data = client.recv(4096)
            if not data:
                return
            head += data
        port = int(head.split()[1].rsplit(b":", 1)[1])
        server = socket.create_connection(("127.0.0.1", port))
        client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        threading.Thread(target=pump, args=(server, client), daemon=True).start()
        pump(client, server)

    def accept():
        while True:
            client, _ = listener.accept()
            threading.Thread(target=serve, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


os.environ["REQUESTS_CA_BUNDLE"] = os.environ["CASEMATE_CA"]
os.environ["HTTPS_PROXY"] = serve_proxy()
os.environ["NO_PROXY"] = os.environ["no_proxy"] = ""

from azure.core.exceptions import HttpResponseError, ResourceNotFoundError  # noqa: E402
from azure.identity import ClientSecretCredential  # noqa: E402
from azure.keyvault.keys import KeyClient  # noqa: E402
from azure.keyvault.keys.crypto import EncryptionAlgorithm, SignatureAlgorithm  # noqa: E402
from azure.mgmt.authorization import AuthorizationManagementClient  # noqa: E402
from azure.mgmt.keyvault import KeyVaultManagementClient  # noqa: E402
from azure.mgmt.resource.resources import ResourceManagementClient  # noqa: E402

URL = os.environ["CASEMATE_URL"]
SUBSCRIPTION = os.environ["CASEMATE_SUBSCRIPTION"]
TENANT = os.environ["CASEMATE_TENANT"]
LOCATION = os.environ.get("CASEMATE_LOCATION", "local")
GROUP = "sdk-rg"
NAME = "sdkvault"


def step(text):
    print(text, flush=True)


def check(condition, text):
    if not condition:
        print(f"NOT AS IT MUST BE: {text}", file=sys.stderr)
        sys.exit(1)


def refused(work, status, text):
    try:
        work()
    except HttpResponseError as error:
        check(error.status_code == status, f"{text}: {error.status_code} {error.message}")
        return error
    check(False, f"{text}: it was let through")


def until(work, text):
    """What was assigned is told to the key service a moment later."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return work()
        except HttpResponseError as error:
            check(error.status_code == 403 and time.monotonic() < deadline, f"{text}: {error}")
            time.sleep(0.2)


def object_id(credential):
    payload = credential.get_token(f"{URL}/.default").token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["oid"]


def assign(roles, scope, role, principal):
    found = list(roles.role_definitions.list(scope, filter=f"roleName eq '{role}'"))
    check(len(found) == 1 and found[0].role_name == role, f"the definition of {role}: {found}")
    parameters = {"properties": {"roleDefinitionId": found[0].id, "principalId": principal}}
    made = roles.role_assignments.create(scope, str(uuid.uuid4()), parameters)
    check(made.principal_id == principal, f"the assignment: {made}")
    return made


def main():
    credential = ClientSecretCredential(
        TENANT,
        os.environ["CASEMATE_CLIENT_ID"],
        os.environ["CASEMATE_CLIENT_SECRET"],
        authority=URL,
        disable_instance_discovery=True,
    )
    arm = {"base_url": URL, "credential_scopes": [f"{URL}/.default"]}
    groups = ResourceManagementClient(credential, SUBSCRIPTION, **arm)
    management = KeyVaultManagementClient(credential, SUBSCRIPTION, **arm)
    roles = AuthorizationManagementClient(credential, SUBSCRIPTION, **arm)
    groups.resource_groups.create_or_update(GROUP, {"location": LOCATION})
    principal = object_id(credential)

    available = management.vaults.check_name_availability({"name": NAME, "type": "Microsoft.KeyVault/vaults"})
    check(available.name_available, f"the name is free: {available}")
    properties = {"tenantId": TENANT, "sku": {"family": "A", "name": "premium"}, "enableRbacAuthorization": True}
    properties["softDeleteRetentionInDays"] = 7
    parameters = {"location": LOCATION, "tags": {"made-by": "sdk"}, "properties": properties}
    vault = management.vaults.begin_create_or_update(GROUP, NAME, parameters).result()
    check(vault.properties.provisioning_state == "Succeeded", f"the vault is ready: {vault}")
    check(vault.properties.vault_uri.startswith(f"https://{NAME}.vault."), f"its address: {vault.properties.vault_uri}")
    check([one.name for one in management.vaults.list_by_resource_group(GROUP)] == [NAME], "the list of the group")
    check(vault.id in [one.id for one in management.vaults.list()], "the list of the subscription")
    step(f"made {vault.properties.vault_uri}")

    keys = KeyClient(vault.properties.vault_uri, credential)
    error = refused(lambda: keys.create_rsa_key("first", size=2048), 403, "nobody has a role yet")
    check("ForbiddenByRbac" in str(error) or error.status_code == 403, str(error))
    assign(roles, f"{vault.id}/keys/first", "Key Vault Crypto Officer", principal)
    first = until(lambda: keys.create_rsa_key("first", size=2048), "the officer of one key makes it")
    check(first.id.startswith(vault.properties.vault_uri), f"its id: {first.id}")
    refused(lambda: list(keys.list_properties_of_keys()), 403, "a role at a key's scope does not list")
    refused(lambda: keys.get_key("second"), 403, "nor does it read another key")
    step("a role at a key's scope is for that key alone")

    assign(roles, vault.id, "Key Vault Crypto Officer", principal)
    second = until(lambda: keys.create_ec_key("second", curve="P-256"), "the officer of the vault makes keys")
    names = sorted(one.name for one in keys.list_properties_of_keys())
    check(names == ["first", "second"], f"the list: {names}")
    crypto = keys.get_cryptography_client("first")
    secret = os.urandom(32)
    sealed = crypto.encrypt(EncryptionAlgorithm.rsa_oaep_256, secret)
    check(crypto.decrypt(EncryptionAlgorithm.rsa_oaep_256, sealed.ciphertext).plaintext == secret, "encrypt, decrypt")
    signer = keys.get_cryptography_client("second")
    signature = signer.sign(SignatureAlgorithm.es256, secret).signature
    check(signer.verify(SignatureAlgorithm.es256, secret, signature).is_valid, "sign, verify")
    rotated = keys.rotate_key("second")
    check(rotated.properties.version != second.properties.version, "a new version")
    deleted = keys.begin_delete_key("second").result()
    check(deleted.properties.recoverable_days == 7, f"the vault's own days: {deleted.properties.recoverable_days}")
    keys.begin_recover_deleted_key("second").wait()
    step("keys are made, listed, used, rotated, deleted and recovered at the vault's own name")

    at_vault = list(roles.role_assignments.list_for_scope(vault.id, filter="atScope()"))
    check([one.scope for one in at_vault] == [vault.id], f"assignments at the vault: {at_vault}")
    roles.role_assignments.delete(at_vault[0].scope, at_vault[0].name)

    def gone():
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                list(keys.list_properties_of_keys())
            except HttpResponseError as error:
                return error.status_code == 403
            time.sleep(0.2)
        return False

    check(gone(), "what is taken away is gone")
    step("roles are listed and taken away")

    management.vaults.delete(GROUP, NAME)
    try:
        management.vaults.get(GROUP, NAME)
        check(False, "a deleted vault is shown")
    except ResourceNotFoundError:
        pass
    refused(lambda: keys.get_key("first"), 404, "a deleted vault answers nobody")
    listed = [one.name for one in management.vaults.list_deleted()]
    check(listed == [NAME], f"the deleted vaults: {listed}")
    available = management.vaults.check_name_availability({"name": NAME, "type": "Microsoft.KeyVault/vaults"})
    check(not available.name_available, "its name is not free")
    recover = {"location": LOCATION, "properties": {**properties, "createMode": "recover"}}
    management.vaults.begin_create_or_update(GROUP, NAME, recover).result()
    assign(roles, vault.id, "Key Vault Crypto User", principal)
    again = until(lambda: keys.get_key("first"), "its keys are there again")
    check(again.key.n == first.key.n, "the same key")
    step("deleted and recovered")

    management.vaults.delete(GROUP, NAME)
    management.vaults.begin_purge_deleted(NAME, LOCATION).wait()
    check(list(management.vaults.list_deleted()) == [], "nothing is left")
    management.vaults.begin_create_or_update(GROUP, NAME, parameters).result()
    assign(roles, vault.id, "Key Vault Crypto Officer", principal)
    empty = until(lambda: list(keys.list_properties_of_keys()), "the new vault of the name")
    check(empty == [], f"it has none of the earlier keys: {empty}")
    step("purged; the name begins anew")

    policies = {"location": LOCATION, "properties": {**properties, "enableRbacAuthorization": False}}
    management.vaults.begin_create_or_update(GROUP, NAME, policies).result()
    refused(lambda: list(keys.list_properties_of_keys()), 403, "roles mean nothing to a vault with policies")
    entry = {"tenantId": TENANT, "objectId": principal, "permissions": {"keys": ["list"]}}
    management.vaults.update_access_policy(GROUP, NAME, "add", {"properties": {"accessPolicies": [entry]}})
    check(list(keys.list_properties_of_keys()) == [], "a policy lets the caller list")
    refused(lambda: keys.create_rsa_key("third"), 403, "and nothing else")
    step("access policies decide where the vault says so")
    management.vaults.delete(GROUP, NAME)
    groups.resource_groups.begin_delete(GROUP).wait()
    step("all done")


main()

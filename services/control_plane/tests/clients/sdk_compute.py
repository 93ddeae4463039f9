#!/usr/bin/env python3
"""Creates, shows, lists, stops, starts and deletes a confidential VM with the unmodified Azure SDK for Python.

Environment:
  CASEMATE_URL            base URL of Resource Manager and of the token endpoint, for example https://localhost:8443
  CASEMATE_CA             PEM file of the installation's certificate authority
  CASEMATE_TENANT, CASEMATE_CLIENT_ID, CASEMATE_CLIENT_SECRET, CASEMATE_SUBSCRIPTION
  CASEMATE_IMAGE          publisher:offer:sku:version   (default casemate:debian-13:default:latest)
  CASEMATE_SIZE           VM size                       (default Casemate_Dev1)
  CASEMATE_LOCATION       region                        (default local)
  CASEMATE_SSH_KEY        a line for authorized_keys    (default: a key that nobody has)

Prints one line a step; exits with 1 at the first thing that is not as it must be.
"""

import os
import sys
import time

os.environ["REQUESTS_CA_BUNDLE"] = os.environ["CASEMATE_CA"]

from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError  # noqa: E402
from azure.identity import ClientSecretCredential  # noqa: E402
from azure.mgmt.compute import ComputeManagementClient  # noqa: E402
from azure.mgmt.network import NetworkManagementClient  # noqa: E402

try:
    from azure.mgmt.resource.resources import ResourceManagementClient  # noqa: E402
except ImportError:  # before azure-mgmt-resource 24
    from azure.mgmt.resource import ResourceManagementClient  # noqa: E402

URL = os.environ["CASEMATE_URL"]
TENANT = os.environ["CASEMATE_TENANT"]
CLIENT_ID = os.environ["CASEMATE_CLIENT_ID"]
SUBSCRIPTION = os.environ["CASEMATE_SUBSCRIPTION"]
LOCATION = os.environ.get("CASEMATE_LOCATION", "local")
SIZE = os.environ.get("CASEMATE_SIZE", "Casemate_Dev1")
IMAGE = os.environ.get("CASEMATE_IMAGE", "casemate:debian-13:default:latest").split(":")
SSH_KEY = os.environ.get(
    "CASEMATE_SSH_KEY",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f nobody",
)
GROUP, NAME = "sdk-rg", "sdkcvm"


def step(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def check(condition, text):
    if not condition:
        print(f"NOT AS IT MUST BE: {text}", file=sys.stderr)
        sys.exit(1)


def credential(secret):
    return ClientSecretCredential(
        TENANT, CLIENT_ID, secret, authority=URL, disable_instance_discovery=True
    )


def power_state(compute):
    view = compute.virtual_machines.instance_view(GROUP, NAME)
    codes = [status.code for status in view.statuses]
    check(codes[0] == "ProvisioningState/succeeded", f"first status of {codes}")
    return next(code for code in codes if code.startswith("PowerState/"))


def body(nic_id):
    publisher, offer, sku, version = IMAGE
    return {
        "location": LOCATION,
        "tags": {"made-by": "sdk_compute.py"},
        "properties": {
            "hardwareProfile": {"vmSize": SIZE},
            "storageProfile": {
                "imageReference": {"publisher": publisher, "offer": offer, "sku": sku, "version": version},
                "osDisk": {
                    "createOption": "FromImage",
                    "deleteOption": "Delete",
                    "managedDisk": {"securityProfile": {"securityEncryptionType": "DiskWithVMGuestState"}},
                },
            },
            "osProfile": {
                "computerName": NAME,
                "adminUsername": "tenant",
                "linuxConfiguration": {
                    "disablePasswordAuthentication": True,
                    "ssh": {
                        "publicKeys": [{"path": "/home/tenant/.ssh/authorized_keys", "keyData": SSH_KEY + "\n"}]
                    },
                },
            },
            "networkProfile": {"networkInterfaces": [{"id": nic_id, "properties": {"primary": True}}]},
            "securityProfile": {
                "securityType": "ConfidentialVM",
                "uefiSettings": {"secureBootEnabled": True, "vTpmEnabled": True},
            },
        },
    }


def network(client):
    client.virtual_networks.begin_create_or_update(
        GROUP,
        "vnet1",
        {
            "location": LOCATION,
            "properties": {
                "addressSpace": {"addressPrefixes": ["10.0.0.0/16"]},
                "subnets": [{"name": "default", "properties": {"addressPrefix": "10.0.0.0/24"}}],
            },
        },
    ).result()
    subnet = client.subnets.get(GROUP, "vnet1", "default")
    nic = client.network_interfaces.begin_create_or_update(
        GROUP,
        "nic1",
        {
            "location": LOCATION,
            "properties": {"ipConfigurations": [{"name": "one", "properties": {"subnet": {"id": subnet.id}}}]},
        },
    ).result()
    return nic.id


def refusals(compute, nic_id):
    broken = body(nic_id)
    broken["properties"]["storageProfile"]["osDisk"]["managedDisk"] = {}
    try:
        compute.virtual_machines.begin_create_or_update(GROUP, "refused", broken)
        check(False, "a confidential VM without an encryption type was accepted")
    except HttpResponseError as error:
        check("securityEncryptionType' is missing (null)" in str(error), str(error))
    try:
        compute.virtual_machines.get(GROUP, "nope")
        check(False, "a VM that does not exist was found")
    except ResourceNotFoundError as error:
        check(error.error.code == "ResourceNotFound", str(error))


def main():
    try:
        credential("wrong").get_token(URL + "/.default")
        check(False, "a wrong secret got a token")
    except ClientAuthenticationError:
        step("a wrong secret gets no token")
    signed_in = credential(os.environ["CASEMATE_CLIENT_SECRET"])
    scopes = {"base_url": URL, "credential_scopes": [URL + "/.default"]}
    resources = ResourceManagementClient(signed_in, SUBSCRIPTION, **scopes)
    compute = ComputeManagementClient(signed_in, SUBSCRIPTION, base_url=URL)  # asks for https://management.azure.com
    networks = NetworkManagementClient(signed_in, SUBSCRIPTION, **scopes)

    check(not resources.resource_groups.check_existence(GROUP), "the group exists already")
    resources.resource_groups.create_or_update(GROUP, {"location": LOCATION})
    check(resources.resource_groups.get(GROUP).location == LOCATION, "location of the group")
    nic_id = network(networks)
    step("group, network and interface are there")
    refusals(compute, nic_id)
    step("what must be refused is refused, in Azure's words")

    started = time.monotonic()
    vm = compute.virtual_machines.begin_create_or_update(GROUP, NAME, body(nic_id)).result()
    check(vm.provisioning_state == "Succeeded", f"provisioning state {vm.provisioning_state}")
    check(vm.security_profile.security_type == "ConfidentialVM", "security type")
    disk = vm.storage_profile.os_disk
    check(disk.managed_disk.security_profile.security_encryption_type == "DiskWithVMGuestState", "encryption type")
    step(f"created {vm.id} in {time.monotonic() - started:.1f} s, vmId {vm.vm_id}")

    check(power_state(compute) == "PowerState/running", "power state after creation")
    expanded = compute.virtual_machines.get(GROUP, NAME, expand="instanceView")
    check(expanded.instance_view.hyper_v_generation == "V2", "generation in the instance view")
    stored = compute.disks.get(GROUP, disk.name)
    check(stored.managed_by == vm.id, "the disk's owner")
    check(stored.security_profile.security_type.startswith("ConfidentialVM_DiskEncrypted"), "the disk's security type")
    step("instance view and disk are shown")

    names = [item.name for item in compute.virtual_machines.list(GROUP)]
    everywhere = [item.name for item in compute.virtual_machines.list_all()]
    check(names == [NAME] and NAME in everywhere, f"lists {names}, {everywhere}")
    skus = [sku.name for sku in compute.resource_skus.list(filter=f"location eq '{LOCATION}'")]
    check("Standard_DC2as_v5" in skus and SIZE in skus, f"skus {skus}")
    step("lists are right")

    update = compute.virtual_machines.begin_update(GROUP, NAME, {"tags": {"changed": "yes"}}).result()
    check(update.tags == {"changed": "yes"}, f"tags {update.tags}")
    again = compute.virtual_machines.begin_create_or_update(GROUP, NAME, update).result()
    check(again.vm_id == vm.vm_id, "a PUT of what was read keeps the VM")
    step("labels changed; a PUT of what was read changes nothing")

    for begin, expected in [
        (compute.virtual_machines.begin_power_off, "PowerState/stopped"),
        (compute.virtual_machines.begin_start, "PowerState/running"),
        (compute.virtual_machines.begin_deallocate, "PowerState/deallocated"),
        (compute.virtual_machines.begin_start, "PowerState/running"),
        (compute.virtual_machines.begin_restart, "PowerState/running"),
    ]:
        begin(GROUP, NAME).result()
        found = power_state(compute)
        check(found == expected, f"{found} instead of {expected}")
        step(f"{begin.__name__}: {found}")

    compute.virtual_machines.begin_delete(GROUP, NAME).result()
    try:
        compute.virtual_machines.get(GROUP, NAME)
        check(False, "the VM is still there")
    except ResourceNotFoundError:
        step("deleted")
    resources.resource_groups.begin_delete(GROUP).result()
    check(not resources.resource_groups.check_existence(GROUP), "the group is still there")
    print("all done")


if __name__ == "__main__":
    main()

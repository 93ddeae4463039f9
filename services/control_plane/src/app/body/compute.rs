//! The tables of Microsoft.Compute's bodies, from the models of `azure-mgmt-compute` 39.0.
//!
//! What is in `ReadOnly` is what our own answers show and what therefore comes back in a `GET`, change, `PUT`.

use super::table::{EnumType, Kind, ObjectType, absent, choice, flag, member, object, shown, text};

/// `PUT` of a virtual machine.
pub static VIRTUAL_MACHINE: ObjectType = ObjectType {
    name: "ResourceDefinition",
    members: &[
        shown("id"),
        shown("name"),
        shown("type"),
        shown("etag"),
        shown("managedBy"),
        shown("systemData"),
        shown("resources"),
        text("location"),
        member("tags", Kind::Labels),
        object("properties", &VM_PROPERTIES),
        absent("zones"),
        absent("identity"),
        absent("plan"),
        absent("extendedLocation"),
        absent("placement"),
    ],
};

/// `PATCH` of a virtual machine: labels only.
pub static VIRTUAL_MACHINE_UPDATE: ObjectType = ObjectType {
    name: "ResourceUpdateDefinition",
    members: &[
        member("tags", Kind::Labels),
        absent("properties"),
        absent("identity"),
        absent("plan"),
        absent("zones"),
    ],
};

static VM_PROPERTIES: ObjectType = ObjectType {
    name: "VirtualMachineProperties",
    members: &[
        shown("provisioningState"),
        shown("instanceView"),
        shown("vmId"),
        shown("timeCreated"),
        object("hardwareProfile", &HARDWARE_PROFILE),
        object("storageProfile", &STORAGE_PROFILE),
        object("osProfile", &OS_PROFILE),
        object("networkProfile", &NETWORK_PROFILE),
        object("securityProfile", &SECURITY_PROFILE),
        member("diagnosticsProfile", Kind::Any),
        choice("priority", &PRIORITY),
        object("casemate", &CASEMATE),
        absent("additionalCapabilities"),
        absent("availabilitySet"),
        absent("virtualMachineScaleSet"),
        absent("proximityPlacementGroup"),
        absent("evictionPolicy"),
        absent("billingProfile"),
        absent("host"),
        absent("hostGroup"),
        absent("licenseType"),
        absent("extensionsTimeBudget"),
        absent("platformFaultDomain"),
        absent("scheduledEventsProfile"),
        absent("scheduledEventsPolicy"),
        absent("userData"),
        absent("capacityReservation"),
        absent("interconnectBlockProfile"),
        absent("applicationProfile"),
        absent("resiliencyProfile"),
        absent("flexProfile"),
    ],
};

/// Ours: the tenant's recovery key goes in, labels come out.
static CASEMATE: ObjectType = ObjectType {
    name: "CasemateProfile",
    members: &[
        text("recoveryKey"),
        shown("trustRoot"),
        shown("host"),
        shown("hostPhase"),
        shown("detail"),
        shown("failure"),
        shown("sshPort"),
        shown("timings"),
        shown("milestones"),
        shown("keyId"),
        shown("key"),
        shown("imageDigest"),
        shown("evidence"),
    ],
};

static PRIORITY: EnumType = EnumType { name: "VirtualMachinePriorityTypes", values: &["Regular"] };

static HARDWARE_PROFILE: ObjectType =
    ObjectType { name: "HardwareProfile", members: &[text("vmSize"), absent("vmSizeProperties")] };

static STORAGE_PROFILE: ObjectType = ObjectType {
    name: "StorageProfile",
    members: &[
        object("imageReference", &IMAGE_REFERENCE),
        object("osDisk", &OS_DISK),
        absent("dataDisks"),
        choice("diskControllerType", &CONTROLLER),
        absent("alignRegionalDisksToVMZone"),
    ],
};

static CONTROLLER: EnumType = EnumType { name: "DiskControllerTypes", values: &["SCSI", "NVMe"] };

static IMAGE_REFERENCE: ObjectType = ObjectType {
    name: "ImageReference",
    members: &[
        text("id"),
        text("publisher"),
        text("offer"),
        text("sku"),
        text("version"),
        shown("exactVersion"),
        absent("sharedGalleryImageId"),
        absent("communityGalleryImageId"),
    ],
};

static OS_DISK: ObjectType = ObjectType {
    name: "OSDisk",
    members: &[
        choice("osType", &OS_TYPE),
        text("name"),
        choice("createOption", &CREATE_OPTION),
        choice("caching", &CACHING),
        member("diskSizeGB", Kind::Int),
        choice("deleteOption", &DELETE_OPTION),
        object("managedDisk", &MANAGED_DISK),
        absent("writeAcceleratorEnabled"),
        absent("diffDiskSettings"),
        absent("encryptionSettings"),
        absent("image"),
        absent("vhd"),
    ],
};

static OS_TYPE: EnumType = EnumType { name: "OperatingSystemTypes", values: &["Linux", "Windows"] };
static CREATE_OPTION: EnumType =
    EnumType { name: "DiskCreateOptionTypes", values: &["FromImage", "Empty", "Attach", "Copy", "Restore"] };
static CACHING: EnumType = EnumType { name: "CachingTypes", values: &["None", "ReadOnly", "ReadWrite"] };
static DELETE_OPTION: EnumType = EnumType { name: "DiskDeleteOptionTypes", values: &["Delete", "Detach"] };

static MANAGED_DISK: ObjectType = ObjectType {
    name: "ManagedDiskParameters",
    members: &[
        shown("id"),
        choice("storageAccountType", &STORAGE_ACCOUNT),
        object("diskEncryptionSet", &SUB_RESOURCE),
        object("securityProfile", &DISK_SECURITY_PROFILE),
    ],
};

static STORAGE_ACCOUNT: EnumType = EnumType {
    name: "StorageAccountTypes",
    values: &[
        "Standard_LRS",
        "Premium_LRS",
        "StandardSSD_LRS",
        "UltraSSD_LRS",
        "Premium_ZRS",
        "StandardSSD_ZRS",
        "PremiumV2_LRS",
    ],
};

static SUB_RESOURCE: ObjectType = ObjectType { name: "SubResource", members: &[text("id")] };

static DISK_SECURITY_PROFILE: ObjectType = ObjectType {
    name: "VMDiskSecurityProfile",
    members: &[
        choice("securityEncryptionType", &SECURITY_ENCRYPTION),
        object("diskEncryptionSet", &SUB_RESOURCE),
    ],
};

static SECURITY_ENCRYPTION: EnumType = EnumType {
    name: "SecurityEncryptionTypes",
    values: &["VMGuestStateOnly", "DiskWithVMGuestState", "NonPersistedTPM"],
};

static OS_PROFILE: ObjectType = ObjectType {
    name: "OSProfile",
    members: &[
        text("computerName"),
        text("adminUsername"),
        text("adminPassword"),
        text("customData"),
        object("linuxConfiguration", &LINUX_CONFIGURATION),
        flag("allowExtensionOperations"),
        flag("requireGuestProvisionSignal"),
        absent("windowsConfiguration"),
        absent("secrets"),
    ],
};

static LINUX_CONFIGURATION: ObjectType = ObjectType {
    name: "LinuxConfiguration",
    members: &[
        flag("disablePasswordAuthentication"),
        object("ssh", &SSH),
        flag("provisionVMAgent"),
        member("patchSettings", Kind::Any),
        flag("enableVMAgentPlatformUpdates"),
    ],
};

static SSH: ObjectType =
    ObjectType { name: "SshConfiguration", members: &[member("publicKeys", Kind::List(&SSH_KEY_ITEM))] };
static SSH_KEY_ITEM: Kind = Kind::Object(&SSH_KEY);
static SSH_KEY: ObjectType = ObjectType { name: "SshPublicKey", members: &[text("path"), text("keyData")] };

static NETWORK_PROFILE: ObjectType = ObjectType {
    name: "NetworkProfile",
    members: &[
        member("networkInterfaces", Kind::List(&NIC_ITEM)),
        text("networkApiVersion"),
        absent("networkInterfaceConfigurations"),
    ],
};
static NIC_ITEM: Kind = Kind::Object(&NIC);
static NIC: ObjectType = ObjectType {
    name: "NetworkInterfaceReference",
    members: &[text("id"), object("properties", &NIC_PROPERTIES)],
};
static NIC_PROPERTIES: ObjectType = ObjectType {
    name: "NetworkInterfaceReferenceProperties",
    members: &[flag("primary"), choice("deleteOption", &DELETE_OPTION)],
};

static SECURITY_PROFILE: ObjectType = ObjectType {
    name: "SecurityProfile",
    members: &[
        choice("securityType", &SECURITY_TYPE),
        object("uefiSettings", &UEFI_SETTINGS),
        flag("encryptionAtHost"),
        absent("encryptionIdentity"),
        absent("proxyAgentSettings"),
    ],
};
static SECURITY_TYPE: EnumType =
    EnumType { name: "SecurityTypes", values: &["Standard", "TrustedLaunch", "ConfidentialVM"] };
static UEFI_SETTINGS: ObjectType =
    ObjectType { name: "UefiSettings", members: &[flag("secureBootEnabled"), flag("vTpmEnabled")] };

/// `PUT` of a disk encryption set.
pub static DISK_ENCRYPTION_SET: ObjectType = ObjectType {
    name: "DiskEncryptionSet",
    members: &[
        shown("id"),
        shown("name"),
        shown("type"),
        shown("systemData"),
        text("location"),
        member("tags", Kind::Labels),
        object("identity", &IDENTITY),
        object("properties", &DES_PROPERTIES),
    ],
};

/// `PATCH` of a disk encryption set.
pub static DISK_ENCRYPTION_SET_UPDATE: ObjectType = ObjectType {
    name: "DiskEncryptionSetUpdate",
    members: &[
        member("tags", Kind::Labels),
        object("identity", &IDENTITY),
        object("properties", &DES_PROPERTIES),
    ],
};

static IDENTITY: ObjectType = ObjectType {
    name: "EncryptionSetIdentity",
    members: &[
        choice("type", &IDENTITY_TYPE),
        shown("principalId"),
        shown("tenantId"),
        absent("userAssignedIdentities"),
    ],
};
static IDENTITY_TYPE: EnumType =
    EnumType { name: "DiskEncryptionSetIdentityType", values: &["SystemAssigned", "None"] };

static DES_PROPERTIES: ObjectType = ObjectType {
    name: "EncryptionSetProperties",
    members: &[
        choice("encryptionType", &DES_TYPE),
        object("activeKey", &ACTIVE_KEY),
        flag("rotationToLatestKeyVersionEnabled"),
        text("federatedClientId"),
        shown("previousKeys"),
        shown("provisioningState"),
        shown("lastKeyRotationTimestamp"),
        shown("autoKeyRotationError"),
    ],
};
static DES_TYPE: EnumType = EnumType {
    name: "DiskEncryptionSetType",
    values: &[
        "EncryptionAtRestWithCustomerKey",
        "EncryptionAtRestWithPlatformAndCustomerKeys",
        "ConfidentialVmEncryptedWithCustomerKey",
    ],
};
static ACTIVE_KEY: ObjectType = ObjectType {
    name: "KeyForDiskEncryptionSet",
    members: &[object("sourceVault", &SUB_RESOURCE), text("keyUrl")],
};

/// `PUT` of an image.
pub static IMAGE: ObjectType = ObjectType {
    name: "Image",
    members: &[
        shown("id"),
        shown("name"),
        shown("type"),
        shown("systemData"),
        text("location"),
        member("tags", Kind::Labels),
        object("properties", &IMAGE_PROPERTIES),
        absent("extendedLocation"),
    ],
};
static IMAGE_PROPERTIES: ObjectType = ObjectType {
    name: "ImageProperties",
    members: &[
        object("storageProfile", &IMAGE_STORAGE_PROFILE),
        choice("hyperVGeneration", &HYPER_V_GENERATION),
        shown("provisioningState"),
        absent("sourceVirtualMachine"),
    ],
};
static HYPER_V_GENERATION: EnumType = EnumType { name: "HyperVGenerationTypes", values: &["V2"] };
static IMAGE_STORAGE_PROFILE: ObjectType = ObjectType {
    name: "ImageStorageProfile",
    members: &[object("osDisk", &IMAGE_OS_DISK), absent("dataDisks"), absent("zoneResilient")],
};
static IMAGE_OS_DISK: ObjectType = ObjectType {
    name: "ImageOSDisk",
    members: &[
        choice("osType", &OS_TYPE),
        choice("osState", &OS_STATE),
        text("blobUri"),
        shown("diskSizeGB"),
        choice("caching", &CACHING),
        choice("storageAccountType", &STORAGE_ACCOUNT),
        absent("snapshot"),
        absent("managedDisk"),
        absent("diskEncryptionSet"),
    ],
};
static OS_STATE: EnumType =
    EnumType { name: "OperatingSystemStateTypes", values: &["Generalized", "Specialized"] };

/// `PATCH` of a disk: labels only.
pub static DISK_UPDATE: ObjectType = ObjectType {
    name: "DiskUpdate",
    members: &[member("tags", Kind::Labels), object("properties", &DISK_UPDATE_PROPERTIES), absent("sku")],
};

static DISK_UPDATE_PROPERTIES: ObjectType =
    ObjectType { name: "DiskUpdateProperties", members: &[object("securityProfile", &DISK_UPDATE_SECURITY)] };

static DISK_UPDATE_SECURITY: ObjectType = ObjectType {
    name: "DiskSecurityProfile",
    members: &[text("securityType"), text("secureVMDiskEncryptionSetId")],
};

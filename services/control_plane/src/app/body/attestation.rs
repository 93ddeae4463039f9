//! The tables of Microsoft.Attestation's bodies, from `specification/attestation/resource-manager` 2021-06-01 of
//! Azure/azure-rest-api-specs; JSON Web Keys as RFC 7517 and RFC 7518 section 6 name their members.

use super::table::{Kind, Member, ObjectType, member, shown, text};

/// A private part of a key: whoever sends one has sent too much.
const fn private(name: &'static str) -> Member {
    member(name, Kind::NotOffered)
}

/// `PUT` of an attestation provider.
pub static ATTESTATION_PROVIDER: ObjectType = ObjectType {
    name: "AttestationServiceCreationParams",
    members: &[
        shown("id"),
        shown("name"),
        shown("type"),
        shown("systemData"),
        text("location"),
        member("tags", Kind::Labels),
        member("properties", Kind::Object(&PROPERTIES)),
    ],
};

/// `PATCH` of an attestation provider.
pub static ATTESTATION_PROVIDER_UPDATE: ObjectType = ObjectType {
    name: "AttestationServicePatchParams",
    members: &[member("tags", Kind::Labels), member("properties", Kind::Object(&PATCHED_PROPERTIES))],
};

static PROPERTIES: ObjectType = ObjectType {
    name: "AttestationServiceCreationSpecificParams",
    members: &[
        shown("trustModel"),
        shown("status"),
        shown("attestUri"),
        shown("privateEndpointConnections"),
        shown("casemate"),
        text("publicNetworkAccess"),
        text("tpmAttestationAuthentication"),
        member("policySigningCertificates", Kind::Object(&KEY_SET)),
    ],
};

static PATCHED_PROPERTIES: ObjectType = ObjectType {
    name: "AttestationServicePatchSpecificParams",
    members: &[text("publicNetworkAccess"), text("tpmAttestationAuthentication")],
};

static KEY_SET: ObjectType =
    ObjectType { name: "JSONWebKeySet", members: &[member("keys", Kind::List(&Kind::Object(&KEY)))] };

static KEY: ObjectType = ObjectType {
    name: "JSONWebKey",
    members: &[
        text("alg"),
        text("crv"),
        text("e"),
        text("kid"),
        text("kty"),
        text("n"),
        text("use"),
        text("x"),
        text("y"),
        member("x5c", Kind::List(&Kind::Text)),
        private("d"),
        private("dp"),
        private("dq"),
        private("k"),
        private("p"),
        private("q"),
        private("qi"),
    ],
};

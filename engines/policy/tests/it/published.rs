//! Every policy that Microsoft's pages publish parses, and does what its page says.
//!
//! Source: github.com/MicrosoftDocs/azure-docs, `articles/attestation`; the texts are in `tests/published`, each with the
//! title of its page.

use expect_test::{Expect, expect};
use policy::language::{Claim, ClaimValue, Configuration, Decision, Policy};
use serde_json::{Value, json};

use super::{decision, parsed};

macro_rules! published {
    ($name:literal) => {
        include_str!(concat!("../published/", $name, ".txt"))
    };
}

fn claims<const N: usize>(pairs: [(&str, ClaimValue); N]) -> Vec<Claim> {
    pairs.into_iter().map(|(name, value)| Claim::of_service(name, value)).collect()
}

fn check(text: &str, claims: Vec<Claim>, expected: Expect) {
    expected.assert_eq(&decision(text, claims));
}

/// The event log of a Windows device in good health, in the form that the pages' queries ask for.
fn windows() -> Value {
    let tag = |sequence: i64, pcr: i64, data: Value| {
        json!({"EventSeq": sequence, "EventTypeString": "EV_EVENT_TAG", "PcrIndex": pcr,
               "ProcessedData": data})
    };
    let boundary = |data: Value| json!({ "EVENT_TRUSTBOUNDARY": data });
    let variable = |sequence: i64, name: &str, guid: &str, data: &str| {
        json!({"EventSeq": sequence, "EventTypeString": "EV_EFI_VARIABLE_DRIVER_CONFIG", "PcrIndex": 7,
               "ProcessedData": {"UnicodeName": name, "VariableGuid": guid, "VariableData": data}})
    };
    let elam = json!([{"EVENT_IMAGEVALIDATED": true, "EVENT_MODULE_SVN": 3,
                       "EVENT_FILEPATH": "\\Windows\\System32\\Drivers\\WdBoot.sys"}]);
    let mut drtm = tag(23, 20, boundary(json!({"EVENT_DRTM_STATE_AUTH": {"SignatureValid": true}})));
    drtm["ProcessedData"]["EVENT_DRTM_SMM"] = Value::Null;
    let smm = tag(22, 20, json!({"EVENT_DRTM_SMM": {"Value": 30}}));
    json!({"Events": [
        variable(1, "SecureBoot", "8BE4DF61-93CA-11D2-AA0D-00E098032B8C", "AQ"),
        variable(2, "PK", "8BE4DF61-93CA-11D2-AA0D-00E098032B8C", "cGs"),
        variable(3, "CurrentPolicy", "77FA9ABD-0359-4D32-BD60-28F4E78F784B", "c2JjcA"),
        tag(10, 12, boundary(json!({"EVENT_APPLICATION_SVN": 7, "EVENT_CODEINTEGRITY": true,
                                    "EVENT_TESTSIGNING": false, "EVENT_DATAEXECUTIONPREVENTION": {"Value": 1}}))),
        tag(11, 12, boundary(json!({"EVENT_TRANSFER_CONTROL": {"Value": 1}, "EVENT_BITLOCKER_UNLOCK": {"Value": 0}}))),
        tag(12, 13, boundary(json!({"EVENT_LOADEDMODULE_AGGREGATION": elam,
                                    "EVENT_SI_POLICY": [{"RawData": "c2kx"}, {"RawData": "c2ky"}]}))),
        tag(13, 12, boundary(json!({"EVENT_APPLICATION_SVN": 9, "EVENT_CODEINTEGRITY": true,
                                    "EVENT_BITLOCKER_UNLOCK": {"Value": 4},
                                    "EVENT_VBS_HVCI_POLICY": {"String": "HypervisorEnforcedCodeIntegrityEnable", "Value": 1},
                                    "EVENT_VBS_VSM_REQUIRED": true, "EVENT_VBS_MANDATORY_ENFORCEMENT": true}))),
        {"EventSeq": 20, "EventTypeString": "EV_SEPARATOR", "PcrIndex": 12},
        smm,
        drtm,
    ]})
}

fn linux() -> Value {
    let variable = |kind: &str, pcr: i64, name: &str, data: &str| json!({"EventTypeString": kind, "PcrIndex": pcr, "ProcessedData": {"UnicodeName": name, "VariableData": data}});
    let config = "EV_EFI_VARIABLE_DRIVER_CONFIG";
    json!({"Events": [
        variable("EV_EFI_VARIABLE_BOOT", 1, "BootOrder", "AAAB"),
        variable(config, 7, "SecureBoot", "AQ"),
        variable(config, 7, "PK", "cGs"),
        variable(config, 7, "KEK", "a2Vr"),
        variable(config, 7, "db", "ZGI"),
        {"EventTypeString": "IMA_MEASUREMENT_EVENT", "ProcessedData": {"KernelVersion": "6.8.0"}},
        {"EventTypeString": "IMA_MEASUREMENT_EVENT",
         "ProcessedData": {"Keyring": ".builtin_trusted_keys", "CertificateSubject": "CN=kernel"}},
    ]})
}

fn events(log: &Value) -> Vec<Claim> {
    vec![Claim::of_service("events", log.to_string())]
}

fn pcrs(first: &str) -> Claim {
    let rest = "3d458cfe55cc03ea1f443f1562beec8df51c75e14a9fcf9a7234a13f198e7969";
    let pcr =
        |index: i64, sha256: &str| json!({"Index": index, "Digests": {"SHA256": sha256, "SHA1": "KCk6Ow"}});
    let values = json!({"PCRs": [
        pcr(0, first), pcr(1, "8c25e3be6ad6f5bd33c9ae40d5d5461e88c1a7366df0c9ee5c7e5ff40d3d1d0e"),
        pcr(2, rest), pcr(3, rest),
    ]});
    Claim::of_service("pcrs", values.to_string()).read_only()
}

fn sgx(debuggable: bool, signer: &str) -> Vec<Claim> {
    claims([
        ("x-ms-sgx-is-debuggable", debuggable.into()),
        ("x-ms-sgx-product-id", 1.into()),
        ("x-ms-sgx-svn", 0.into()),
        ("x-ms-sgx-mrsigner", signer.into()),
        ("x-ms-sgx-mrenclave", "enclave".into()),
        ("x-ms-attestation-type", "sgx".into()),
    ])
}

#[test]
fn sgx_policies() {
    check(
        published!("sgx-custom"),
        sgx(false, "mrsigner1"),
        expect![[r#"
        permit
        custom-name="mrsigner1""#]],
    );
    check(
        published!("sgx-custom"),
        sgx(true, "mrsigner1"),
        expect![[
            r#"deny x-ms-sgx-is-debuggable: expected false, found true (policy line 5: [ type=="x-ms-sgx-is-debuggable", value==false ] && [ type=="x-ms-sgx-product-id", value==1 ] && [ type=="x-ms-sgx-svn", value>= 0 ] && [ type=="x-ms-sgx-mrsigner", value=="mrsigner1"] => permit())"#
        ]],
    );
    check(
        published!("sgx-default"),
        sgx(true, "mrsigner1"),
        expect![[r#"
        permit
        is-debuggable=true
        sgx-mrsigner="mrsigner1"
        sgx-mrenclave="enclave"
        product-id=1
        svn=0
        tee="sgx"
        (x-ms-sgx-tcbidentifier="azuredefault")"#]],
    );
    check(published!("sgx-multiple"), sgx(true, "mrsigner2"), expect!["permit"]);
    check(
        published!("sgx-multiple"),
        sgx(true, "mrsigner3"),
        expect![[
            r#"deny x-ms-sgx-mrsigner: expected "mrsigner1", found "mrsigner3" (policy line 5: [ type=="x-ms-sgx-is-debuggable", value==true ]&& [ type=="x-ms-sgx-mrsigner", value=="mrsigner1"] => permit())"#
        ]],
    );
    let deprecated = claims([("$is-debuggable", false.into()), ("$tee", "sgx".into())]);
    check(
        published!("sgx-signed"),
        deprecated,
        expect![[r#"
        permit
        NotDebuggable=false
        is-debuggable=false
        tee="sgx""#]],
    );
    check(
        published!("sgx-signed"),
        claims([("$is-debuggable", true.into())]),
        expect![[
            r#"deny $is-debuggable: expected other than true, found true (policy line 2: c:[type=="$is-debuggable"] && [value==true]=> deny())"#
        ]],
    );
}

#[test]
fn policies_of_the_page_on_writing_them() {
    let boot = || claims([("secureBootEnabled", true.into()), ("notSafeMode", true.into())]);
    check(
        published!("author-first"),
        boot(),
        expect![[r#"
        permit
        secureBootEnabled=true
        notSafeMode=true"#]],
    );
    check(
        published!("author-deny"),
        boot(),
        expect![
            "deny any: expected another policy, found denied without a condition (policy line 5: =>deny())"
        ],
    );
    check(
        published!("author-issue"),
        boot(),
        expect![[r#"
        permit
        SecurityLevelValue=100"#]],
    );
    let Ok(Decision::Permit(permit)) = parsed(published!("author-issue")).evaluate(boot()) else {
        panic!("the page says that this is permitted");
    };
    let issued = permit.issued().first().expect("one claim");
    assert_eq!((issued.issuer.name(), issued.value.type_name()), ("AttestationPolicy", "Integer"));
}

#[test]
fn rules_of_the_grammar_page_bind_what_the_client_says_to_what_the_service_says() {
    let linux = Claim::of_service("OSName", "linux");
    let agreeing = vec![linux.clone(), Claim::of_client("OSName", "linux")];
    check(
        published!("grammar"),
        agreeing,
        expect![[r#"
        permit
        OSName="linux"
        (report_validity_in_minutes=1440)"#]],
    );
    check(published!("grammar"), vec![linux, Claim::of_client("OSName", "windows")], expect!["permit"]);
}

#[test]
fn configuration_of_the_version_1_1_page() {
    let device = |validated: bool| {
        claims([
            ("aikValidated", validated.into()),
            ("secureBootEnabled", true.into()),
            ("bootDebuggingDisabled", true.into()),
            ("notSafeMode", true.into()),
        ])
    };
    check(
        published!("tpm-1-1"),
        device(true),
        expect![[r#"
        permit
        PlatformAttested=true
        (required_pcr_mask=15)
        (require_valid_aik_cert=false)"#]],
    );
    check(
        published!("tpm-1-1"),
        device(false),
        expect![[r#"
        permit
        PlatformAttested=false
        (required_pcr_mask=15)
        (require_valid_aik_cert=false)"#]],
    );
    let configuration = parsed(published!("tpm-1-1")).configuration(&[]).expect("no claim is needed");
    let expected =
        Configuration { require_valid_aik_cert: false, required_pcr_mask: 15, ..Configuration::default() };
    assert_eq!(configuration, expected);
}

#[test]
fn tpm_policies_of_versions_1_0_and_1_2() {
    let device = claims([
        ("aikValidated", true.into()),
        ("secureBootEnabled", true.into()),
        ("bootDebuggingDisabled", true.into()),
        ("vbsEnabled", true.into()),
        ("notWinPE", true.into()),
        ("notSafeMode", true.into()),
    ]);
    check(
        published!("tpm-1-0"),
        device,
        expect![[r#"
        permit
        PlatformAttested=true"#]],
    );
    let mut windows_device = events(&windows());
    windows_device.push(Claim::of_service("aikValidated", true));
    check(
        published!("tpm-1-2"),
        windows_device,
        expect![[r#"
        permit
        aikValidated=true
        SecureBootEnabled=true
        CodeIntegrityEnabled=true
        BitlockerStatus=true
        ELAMDriverLoaded=true"#]],
    );
    check(
        published!("tpm-1-2"),
        events(&json!({"Events": []})),
        expect![[r#"
        permit
        SecureBootEnabled=false
        CodeIntegrityEnabled=false
        BitlockerStatus=false
        ELAMDriverLoaded=true"#]],
    );
    check(
        published!("functions-sample"),
        events(&windows()),
        expect![[r#"
        permit
        secureBootEnabled=true"#]],
    );
    check(published!("tpm-sample-1-2"), events(&windows()), expect!["permit"]);
    check(
        published!("tpm-vbs-enclave"),
        claims([("vsmReportPresent", true.into())]),
        expect![[
            r#"deny enclaveAuthorId: expected "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", found missing (policy line 5: [type=="vsmReportPresent", value==true] && [type=="enclaveAuthorId", value=="AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] && [type=="enclaveImageId", value=="AQEAAAAAAAAAAAAAAAAAAA"] && [type=="enclaveSvn", value>=0] => permit())"#
        ]],
    );
}

#[test]
fn known_pcr_values_permit_and_others_are_named() {
    let known = "4c833b1c361fceffd8dc0f81eec76081b71e1a0eb2193caed0b6e1c7735ec33e";
    check(published!("tpm-pcrs"), vec![pcrs(known)], expect!["permit"]);
    check(
        published!("tpm-pcrs"),
        vec![pcrs("00")],
        expect![[
            r#"deny pcr0Validated: expected true, found false (made of pcrs by line 6) (policy line 11: [type=="pcr0Validated", value==true] && [type=="pcr1Validated", value==true] && [type=="pcr2Validated", value==true] && [type=="pcr3Validated", value==true] => permit())"#
        ]],
    );
    check(
        published!("tpm-pcrs"),
        vec![],
        expect![[
            r#"deny pcr0Validated: expected true, found missing; line 6 makes it, but pcrs: expected issuer "AttestationService", found missing (policy line 11: [type=="pcr0Validated", value==true] && [type=="pcr1Validated", value==true] && [type=="pcr2Validated", value==true] && [type=="pcr3Validated", value==true] => permit())"#
        ]],
    );
}

/// Two answers are what the queries say and not what their pages mean: `[? ...] | @ != `null`` is true of an empty list as
/// well, and `true`, `null`, `'20'` in a query are members and a text, not values.
#[test]
fn windows_policies() {
    check(
        published!("tpm-system-guard"),
        events(&windows()),
        expect![[r#"
        permit
        drtmMleValid=true
        smmLevel=30"#]],
    );
    check(
        published!("tpm-windows"),
        events(&windows()),
        expect![[r#"
        permit
        secureBootEnabled=true
        bootDebuggingDisabled=false
        vbsEnabled=true
        vbsEnabled=true
        drtmMleValid=false"#]],
    );
    check(
        published!("tpm-malicious-driver"),
        events(&windows()),
        expect![[r#"
        permit
        hvciEnabled=true
        MaliciousDriverLoaded=true"#]],
    );
    check(
        published!("tpm-drivers"),
        events(&windows()),
        expect![[r#"
        permit
        alldriverloads="[\"\\\\Windows\\\\System32\\\\Drivers\\\\WdBoot.sys\"]"
        DriverLoadPolicy="null""#]],
    );
    check(
        published!("tpm-incoming"),
        events(&json!({"Events": [1]})),
        expect![[r#"
        permit
        outputEvents="{\"Events\":[1]}""#]],
    );
    let mut device = events(&windows());
    device.extend([pcrs("00"), Claim::of_service("pcrMatchesExpectedValue", true)]);
    check(
        published!("features-1-2"),
        device,
        expect![[r#"
        permit
        bitlockerStatus=4
        depPolicy=1
        testSigningDisabled=true
        codeIntegrityPolicy="c2kx"
        codeIntegrityPolicy="c2ky"
        secureBootCustomPolicy="c2JjcA"
        pcrMatchesExpectedValue=true
        bootMgrSvn=7
        bootAppSvn=9"#]],
    );
}

#[test]
fn linux_policy() {
    let mut device = events(&linux());
    device.push(Claim::of_service("aikValidated", true));
    check(
        published!("tpm-linux"),
        device,
        expect![[r#"
        permit
        bootOrder="AAAB"
        secureBootEnabled=true
        platformKey="cGs"
        keyExchangeKey="a2Vr"
        keyDatabase="ZGI"
        forbiddenSignatures=false
        kernelVersions="6.8.0"
        builtintrustedkeys="CN=kernel""#]],
    );
}

#[test]
fn key_policies() {
    let key = json!({"jwk": {"kty": "RSA"}, "info": {
        "tpm_quote": {"hash_alg": "sha-256"},
        "tpm_certify": {"name_alg": 11, "obj_attr": 50, "auth_policy": "AQIDBA"},
    }});
    let keys = || {
        vec![
            Claim::of_service("x-ms-tpm-request-key", key.to_string()),
            Claim::of_service("x-ms-tpm-other-keys", json!([key, key]).to_string()),
        ]
    };
    check(published!("tpm-key"), keys(), expect!["permit"]);
    check(
        published!("tpm-keys"),
        keys(),
        expect![[r#"
        permit
        requestKeyType="RSA"
        otherKeysTypes="RSA"
        requestKeyQuoteHashAlg="sha-256"
        requestKeyCertifyNameAlg=11
        requestKeyCertifyObjAttr=50
        requestKeyCertifyAuthPolicy="AQIDBA"
        otherKeysCertifyNameAlgs=11
        otherKeysCertifyObjAttr=50
        otherKeysCertifyAuthPolicy="AQIDBA""#]],
    );
    let mut weak = key.clone();
    weak["info"]["tpm_certify"]["obj_attr"] = json!(51);
    check(
        published!("tpm-key"),
        vec![Claim::of_service("x-ms-tpm-request-key", weak.to_string())],
        expect![[
            r#"deny requestKeyCertifyObjAttrVerified: expected issuer "AttestationPolicy" and true, found missing; line 14 makes it, but requestKeyCertifyObjAttr: expected 50, found 51 (made of requestKeyCertify by line 13) (policy line 16: c:[type=="requestKeyCertifyObjAttrVerified", issuer=="AttestationPolicy" , value==true] => permit())"#
        ]],
    );
}

#[test]
fn rules_of_the_functions_page() {
    let incoming = claims([
        ("JsonData", r#"{"values": [0,1,2,3,4]}"#.into()),
        ("JmesPathQuery", "values[2]".into()),
        ("JsonIntegerData", "100".into()),
        ("JsonBooleanData", "true".into()),
        ("JsonStringData", r#""abc""#.into()),
        ("JsonArrayData", r#"[0, "abc", true]"#.into()),
        ("JsonNullData", "null".into()),
        ("Subset", "abc".into()),
        ("Subset", 100.into()),
        ("Superset", true.into()),
        ("Superset", "abc".into()),
        ("Superset", 100.into()),
        ("String1", "abc".into()),
        ("String2", "xyz".into()),
        ("Input", true.into()),
        ("Set", 100.into()),
        ("Set", 101.into()),
    ]);
    check(
        published!("function-rules"),
        incoming,
        expect![[r#"
        permit
        JmesPathResult="\"bar\""
        JmesPathResult="2"
        IntegerResult=100
        BooleanResult=true
        StringResult="abc"
        Result=0
        Result="abc"
        Result=true
        IsSubset=true
        AppendResult="abcxyz"
        NegateResult=false
        OnlyResult=false
        Claim3=300"#]],
    );
}

/// What the pages misspell is refused where it stands.
#[test]
fn slips_of_the_pages_are_refused() {
    let rule = |rule: &str| {
        let text = format!("version=1.2; issuancerules {{ {rule} }};");
        Policy::parse(&text).expect_err("the page misspells this").to_string()
    };
    expect!["line 1, column 76: expected one of the functions `JmesPath`, `JsonToClaimValue`, `IsSubsetOf`, `AppendString`, `NegateBool`, `ContainsOnlyValue`, found `NegateBol`"].assert_eq(&rule(r#"c:[type=="Input"] => add(type="Result", value=NegateBol(c.value));"#));
    expect!["line 1, column 95: expected `,`, found `)`"]
        .assert_eq(&rule(r#"c:[type=="Set"] => add(type="Result", value=ContainsOnlyValue(100));"#));
    expect!["line 1, column 115: expected the identifier of an earlier condition of this rule, found `c1`"].assert_eq(&rule(r#"c:[type=="String1"] && c2:[type=="String2"] => add(type="Result", value=AppendString(c1.value, c2.value));"#));
    expect![
        "line 1, column 39: expected a word, a text, an integer or a symbol of the policy language, found '”'"
    ]
    .assert_eq(&rule("c:[type==”$svn”] => issue(type=”svn”, value=c.value);"));
    expect!["line 1, column 76: expected an integer of 64 bits, found '-'"].assert_eq(&rule(
        r#"[ type=="x-ms-sgx-product-id", value==<product-id> ] => add(type="a", value=1);"#,
    ));
}

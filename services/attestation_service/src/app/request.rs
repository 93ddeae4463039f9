//! Reading the body of `POST /attest/SevSnpVm`: strict about members, lenient about case, base64 and padding.

use public_api::attestation::{AttachedData, DataType, SevSnpEvidence};
use serde_json::Value;

use super::fields::{FieldError, Fields};

/// Longest accepted nonce, in characters.
const MAX_NONCE: usize = 1024;

/// A request whose fields could be read. Nothing in it is verified.
#[derive(Clone, Debug)]
pub struct Request {
    /// The evidence.
    pub evidence: Evidence,
    /// The caller's or our nonce: a string, or a number as some clients send it.
    pub nonce: Option<Value>,
    /// A policy to try instead of the configured one.
    pub draft_policy: Option<String>,
}

/// Report, certificates, and the data that the report binds.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// The report, hoped to have 1,184 bytes.
    pub report: Vec<u8>,
    /// PEM of VCEK or VLEK, ASK, ARK.
    pub certificates: Vec<u8>,
    /// Bound by REPORT_DATA.
    pub runtime_data: Option<Attached>,
    /// Bound by HOST_DATA.
    pub init_time_data: Option<Attached>,
}

/// Bytes, and how the token shows them.
#[derive(Clone, Debug)]
pub struct Attached {
    /// What is hashed.
    pub bytes: Vec<u8>,
    /// What is shown.
    pub shown: Value,
}

impl Attached {
    /// Reads attached data for showing.
    pub fn new(data: AttachedData, path: &str) -> Result<Self, FieldError> {
        let shown = match data.data_type {
            DataType::Binary => Value::String(public_api::encoding::to_base64url(&data.data)),
            DataType::JSON => serde_json::from_slice(&data.data)
                .map_err(|error| FieldError::new(path, format!("its data is not JSON: {error}")))?,
        };
        Ok(Self { bytes: data.data, shown })
    }

    /// A top-level member of JSON data that is a text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.shown.get(name)?.as_str()
    }
}

impl Request {
    /// Reads a body.
    pub fn parse(body: &[u8]) -> Result<Self, FieldError> {
        let members = ["report", "runtimeData", "initTimeData", "nonce", "draftPolicyForAttestation"];
        let fields = Fields::parse("", body, &members)?;
        let evidence = evidence(&fields.bytes("report")?)?;
        let nonce: Option<Value> = fields.optional("nonce")?;
        if !nonce.as_ref().is_none_or(is_nonce) {
            return Err(FieldError::new(
                "nonce",
                format!("expected a text of at most {MAX_NONCE} characters"),
            ));
        }
        Ok(Self {
            evidence: Evidence {
                report: evidence.snp_report,
                certificates: evidence.vcek_cert_chain,
                runtime_data: attached(&fields, "runtimeData")?,
                init_time_data: attached(&fields, "initTimeData")?,
            },
            nonce,
            draft_policy: fields.optional("draftPolicyForAttestation")?,
        })
    }
}

fn is_nonce(nonce: &Value) -> bool {
    match nonce {
        Value::String(text) => text.len() <= MAX_NONCE,
        Value::Number(_) => true,
        _ => false,
    }
}

pub(super) fn evidence(report: &[u8]) -> Result<SevSnpEvidence, FieldError> {
    let fields = Fields::parse("report", report, &["SnpReport", "VcekCertChain", "Endorsements"])?;
    Ok(SevSnpEvidence {
        snp_report: fields.bytes("SnpReport")?,
        vcek_cert_chain: fields.bytes("VcekCertChain")?,
        endorsements: fields.optional("Endorsements")?,
    })
}

pub(super) fn attached(fields: &Fields<'_>, name: &'static str) -> Result<Option<Attached>, FieldError> {
    let Some(text) = fields.raw(name) else { return Ok(None) };
    let members = Fields::parse(name, text.as_bytes(), &["data", "dataType"])?;
    let data_type: DataType = members.required("dataType")?;
    let data = AttachedData { data: members.bytes("data")?, data_type };
    Attached::new(data, name).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use public_api::encoding::{to_base64, to_base64url};
    use serde_json::json;

    fn report() -> String {
        to_base64url(json!({"SnpReport": "AQI", "VcekCertChain": to_base64(b"pem")}).to_string().as_bytes())
    }

    fn problem(body: &Value) -> String {
        Request::parse(body.to_string().as_bytes()).expect_err("must be refused").to_string()
    }

    #[test]
    fn every_spelling_that_clients_use_is_read() {
        let body = json!({
            "Report": report(),
            "runtimedata": {"Data": to_base64url(br#"{"a":1}"#), "datatype": "JSON"},
            "initTimeData": {"data": to_base64(b"\xff\xfe"), "dataType": "Binary"},
            "nonce": 18_446_744_073_709_551_615_u64,
        });
        let request = Request::parse(body.to_string().as_bytes()).expect("read");
        assert_eq!(request.evidence.report, [1, 2]);
        assert_eq!(request.evidence.certificates, b"pem");
        assert_eq!(request.evidence.runtime_data.expect("there").shown, json!({"a": 1}));
        assert_eq!(request.evidence.init_time_data.expect("there").shown, json!("__4"));
        assert_eq!(request.nonce, Some(json!(18_446_744_073_709_551_615_u64)));
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        let inner = |value: Value| to_base64url(value.to_string().as_bytes());
        let cases = [
            (json!({"report": "e30"}), "`report.SnpReport`: missing"),
            (json!({"report": inner(json!({"SnpReport": "AQI"}))}), "`report.VcekCertChain`: missing"),
            (
                json!({"report": inner(json!({"SnpReport": "AQI", "VcekCertChain": "", "Extra": 1}))}),
                "`report.Extra`: unknown field, expected one of SnpReport, VcekCertChain, Endorsements",
            ),
            (json!({"report": report(), "runtimeData": {"data": "AA"}}), "`runtimeData.dataType`: missing"),
            (
                json!({"report": report(), "runtimeData": {"data": "AA", "dataType": "JSON"}}),
                "`runtimeData`: its data is not JSON: expected value at line 1 column 1",
            ),
            (
                json!({"report": report(), "initTimeData": {"data": "AA", "dataType": "Text"}}),
                "`initTimeData.dataType`: not the expected JSON: unknown variant `Text`, expected one of `JSON`, `Json`, `json`, `Binary`, `binary` at line 1 column 6",
            ),
            (
                json!({"report": report(), "nonce": ["a"]}),
                "`nonce`: expected a text of at most 1024 characters",
            ),
            (
                json!({"report": report(), "nonce": "a".repeat(1025)}),
                "`nonce`: expected a text of at most 1024 characters",
            ),
        ];
        for (body, expected) in cases {
            assert_eq!(problem(&body), expected, "{body}");
        }
    }

    proptest! {
        #[test]
        fn no_body_panics(body: Vec<u8>) {
            let _ = Request::parse(&body);
        }
    }
}

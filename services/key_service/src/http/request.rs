//! What requests carry: the API version, paging, and JSON bodies that are read with a limit and refused by field.

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, FailedToBufferBody};
use axum::extract::{FromRequest as _, FromRequestParts, RawPathParams, Request};
use axum::http::request::Parts;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::app::keys::KeyRef;
use crate::app::{AppError, quoted};

const PAGE: u32 = 25;
/// Members of nested objects, whose types are shared with answers and therefore lenient when they are read.
const NESTED: [(&str, &[&str]); 2] = [
    (
        "attributes",
        &["enabled", "nbf", "exp", "created", "updated", "recoverableDays", "recoveryLevel", "exportable"],
    ),
    ("release_policy", &["contentType", "data", "immutable"]),
];

/// `api-version` of the query: `7.N`, with `-preview` or `-preview.N` behind it or not, or a date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiVersion {
    text: String,
    /// Whether this version knows exportable keys and release.
    pub releasable: bool,
}

impl ApiVersion {
    /// As the client wrote it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Reads a version.
    pub fn parse(text: &str) -> Option<Self> {
        let plain = text.split_once("-preview").map_or(text, |(plain, _)| plain);
        let releasable = match plain {
            "7.0" | "7.1" | "7.2" | "2016-10-01" => false,
            "7.3" | "7.4" | "7.5" | "7.6" | "2025-07-01" => true,
            _ => return None,
        };
        Some(Self { text: text.to_owned(), releasable })
    }
}

impl<S: Sync> FromRequestParts<S> for ApiVersion {
    type Rejection = AppError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, AppError> {
        let text = query(parts, "api-version")
            .ok_or_else(|| AppError::bad("api-version", "api-version must be specified in the query"))?;
        let known = "expected 7.0 to 7.6, 2025-07-01, or a preview of these";
        ApiVersion::parse(&text)
            .ok_or_else(|| AppError::bad("api-version", format!("{text:?} is not supported; {known}")))
    }
}

/// `maxresults` and `$skiptoken` of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paging {
    /// Items on this page.
    pub limit: u32,
    /// The last name of the page before.
    pub after: String,
}

impl<S: Sync> FromRequestParts<S> for Paging {
    type Rejection = AppError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, AppError> {
        let limit = match query(parts, "maxresults") {
            None => PAGE,
            Some(text) => {
                let number = text.parse().ok().filter(|number| (1..=PAGE).contains(number));
                number.ok_or_else(|| AppError::bad("maxresults", format!("expected 1 to {PAGE}")))?
            }
        };
        Ok(Self { limit, after: query(parts, "$skiptoken").unwrap_or_default() })
    }
}

/// `{name}` of the path, with `{version}` where the path has one.
impl<S: Send + Sync> FromRequestParts<S> for KeyRef {
    type Rejection = AppError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, AppError> {
        let parameters = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|_| AppError::bad("name", "the path is not UTF-8"))?;
        let find = |wanted: &str| {
            parameters.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value.to_owned())
        };
        Ok(Self { name: find("name").unwrap_or_default(), version: find("version") })
    }
}

/// A number in the query.
pub fn number(parts: &Parts, name: &str) -> Result<Option<u64>, AppError> {
    let text = query(parts, name);
    text.map(|text| text.parse().map_err(|_| AppError::bad(name, "expected a number"))).transpose()
}

/// A text in the query.
pub fn text(parts: &Parts, name: &str) -> Option<String> {
    query(parts, name).filter(|text| !text.is_empty())
}

fn query(parts: &Parts, name: &str) -> Option<String> {
    let pairs = url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
    pairs.into_iter().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

/// Reads a JSON body. Errors name the field.
pub async fn json<T: DeserializeOwned>(request: Request) -> Result<T, AppError> {
    let bytes = read(request).await?;
    parse(&bytes)
}

/// The same for a body whose types refuse unknown fields at every depth by themselves.
pub async fn strict_json<T: DeserializeOwned>(request: Request) -> Result<T, AppError> {
    parse_strict(&read(request).await?)
}

/// The gate bounds length and time; what it cuts off is told here.
async fn read(request: Request) -> Result<Bytes, AppError> {
    use FailedToBufferBody::LengthLimitError;
    Bytes::from_request(request, &()).await.map_err(|rejection| match rejection {
        BytesRejection::FailedToBufferBody(LengthLimitError(_)) => AppError::BodyTooLarge,
        _ => AppError::BodyIncomplete,
    })
}

/// Parses a body; the error says where.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, AppError> {
    let value = parse_strict(bytes)?;
    unknown_members(bytes)?;
    Ok(value)
}

/// The same for types that refuse unknown fields at every depth by themselves.
pub fn parse_strict<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, AppError> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let message = quoted::message(&error.inner().to_string());
        AppError::bad(target(&error.path().to_string()), message)
    })?;
    deserializer.end().map_err(|error| AppError::bad("body", error.to_string()))?;
    Ok(value)
}

/// The field that a path leads to. `?` stands where the text broke off before a name was read.
fn target(path: &str) -> String {
    match path.trim_end_matches('?').trim_end_matches('.') {
        "" => "body".to_owned(),
        path => path.to_owned(),
    }
}

/// Reads the nested objects alone: a body may hold a private key, of which no copy is made that is not wiped.
#[derive(Deserialize)]
struct Nested {
    #[serde(default)]
    attributes: Option<Map<String, Value>>,
    #[serde(default)]
    release_policy: Option<Map<String, Value>>,
}

fn unknown_members(bytes: &[u8]) -> Result<(), AppError> {
    let nested: Nested = serde_json::from_slice(bytes)
        .map_err(|error| AppError::bad("body", quoted::message(&error.to_string())))?;
    for ((outer, known), members) in NESTED.into_iter().zip([nested.attributes, nested.release_policy]) {
        let members = members.iter().flatten();
        if let Some((name, _)) = members.into_iter().find(|(name, _)| !known.contains(&name.as_str())) {
            let known = known.join(", ");
            return Err(AppError::bad(
                format!("{outer}.{name}"),
                format!("unknown field {name:?}, expected one of {known}"),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use public_api::keys::{KeyCreateParameters, KeyReleaseParameters, KeyUpdateParameters};

    use super::*;

    #[test]
    fn versions_that_know_release() {
        let releasable = |text: &str| ApiVersion::parse(text).map(|version| version.releasable);
        for text in ["7.3", "7.4", "7.3-preview", "7.6-preview.2", "2025-07-01"] {
            assert_eq!(releasable(text), Some(true), "{text}");
        }
        for text in ["7.0", "7.1", "7.2", "7.2-preview", "2016-10-01"] {
            assert_eq!(releasable(text), Some(false), "{text}");
        }
        for text in ["", "7", "7.", "7.-1", "7.7", "7.300", "7.3.1", "8.0", "2025-07-02", "latest", " 7.3"] {
            assert_eq!(releasable(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_version_is_read_or_refused(text: String) {
            let _ = ApiVersion::parse(&text);
        }

        #[test]
        fn any_body_is_read_or_refused(bytes: Vec<u8>) {
            prop_assert!(parse::<KeyCreateParameters>(&bytes).is_err());
            let _ = parse::<KeyReleaseParameters>(&bytes);
            let _ = parse::<KeyUpdateParameters>(&bytes);
        }

        #[test]
        fn any_json_like_body_is_read_or_refused(
            text in r#"(\{|\}|\[|\]|"kty"|"attributes"|"release_policy"|"data"|"target"|"enabled"|:|,|1|true|null|"x"){0,24}"#
        ) {
            let _ = parse::<KeyCreateParameters>(text.as_bytes());
            let _ = parse::<KeyReleaseParameters>(text.as_bytes());
            let _ = parse::<KeyUpdateParameters>(text.as_bytes());
        }
    }
}

//! Extractors: the provider that a path or a host name is about, and callers with a permission.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use http_service::Admission;
use public_api::denial::ErrorBody;

use super::error::{Failure, answer, failure, fault};
use crate::app::access::{AccessError, Permission};
use crate::app::attest::Service;
use crate::app::provider::Provider;
use crate::app::provider::registry::Registry;

/// The name of the provider, put into the request where the path was taken apart.
#[derive(Clone, Debug)]
pub struct ProviderName(pub String);

/// The provider that a request is about.
pub struct Of(pub Arc<Provider>);

impl FromRequestParts<Arc<Service>> for Of {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, service: &Arc<Service>) -> Result<Self, Failure> {
        find(&service.providers, parts).map(Of)
    }
}

fn find(providers: &Registry, parts: &Parts) -> Result<Arc<Provider>, Failure> {
    match parts.extensions.get::<ProviderName>() {
        None => Ok(Arc::clone(providers.default_provider())),
        Some(ProviderName(name)) => providers.find(name).ok_or_else(|| {
            let name: String = name.chars().take(100).collect();
            failure(StatusCode::NOT_FOUND, "ProviderNotFound", format!("there is no provider {name}"))
        }),
    }
}

/// A caller who may read everything of this service, whichever provider the path names.
pub struct Reader;
/// The id of a caller who may change everything of this service, whichever provider the path names.
pub struct Contributor(pub String);
/// The id of a caller who may read what is the named provider's own.
pub struct ProviderReader(pub String);
/// The id of a caller who may change what is the named provider's own.
pub struct ProviderContributor(pub String);

impl FromRequestParts<Arc<Service>> for Reader {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, service: &Arc<Service>) -> Result<Self, Response> {
        require(parts, service, Permission::Read, None).await.map(|_| Reader)
    }
}

impl FromRequestParts<Arc<Service>> for Contributor {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, service: &Arc<Service>) -> Result<Self, Response> {
        require(parts, service, Permission::Change, None).await.map(Contributor)
    }
}

impl FromRequestParts<Arc<Service>> for ProviderReader {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, service: &Arc<Service>) -> Result<Self, Response> {
        require_of_provider(parts, service, Permission::Read).await.map(ProviderReader)
    }
}

impl FromRequestParts<Arc<Service>> for ProviderContributor {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, service: &Arc<Service>) -> Result<Self, Response> {
        require_of_provider(parts, service, Permission::Change).await.map(ProviderContributor)
    }
}

async fn require_of_provider(
    parts: &mut Parts,
    service: &Service,
    permission: Permission,
) -> Result<String, Response> {
    let provider = find(&service.providers, parts).map_err(|failure| failure.into_response())?;
    let resource = provider.settings().resource.as_ref().map(|resource| resource.id.clone());
    require(parts, service, permission, resource.as_deref()).await
}

/// The request is charged to the caller, or to its address where the token is not good.
async fn require(
    parts: &mut Parts,
    service: &Service,
    permission: Permission,
    resource: Option<&str>,
) -> Result<String, Response> {
    let header = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = header.and_then(token_verifier::bearer::token_of);
    let entrance = service.access.require(token, permission, resource, super::now()).await;
    Admission::settle(parts, entrance.as_deref().ok()).map_err(|refusal| *refusal)?;
    entrance.map_err(|error| refused(service, error))
}

fn refused(service: &Service, error: AccessError) -> Response {
    let body = match error {
        AccessError::Forbidden(denial) => {
            return answer(StatusCode::FORBIDDEN, ErrorBody::denied("Forbidden", *denial), ());
        }
        AccessError::Unavailable(error) => {
            let mut unavailable = fault(&error).into_response();
            *unavailable.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            return unavailable;
        }
        AccessError::Unauthorized(denial) => ErrorBody::denied("Unauthorized", *denial),
        error @ (AccessError::NoToken | AccessError::NoCallers) => {
            ErrorBody::new("Unauthorized", error.to_string())
        }
    };
    let mut response = answer(StatusCode::UNAUTHORIZED, body, ());
    if let Ok(value) = HeaderValue::from_str(service.access.challenge()) {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
    }
    response
}
